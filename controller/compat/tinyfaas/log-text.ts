import { createHash } from 'node:crypto'
import type { NodeLogLine } from '#shared/schemas/api.ts'

/**
 * Log lines as tinyFaaS prints them: `function=<name> handler=<64 hex digits> <RFC 3339 time> <text>`; per handler first all of
 * stdout, then all of stderr.
 */
export function logText(name: string, lines: readonly NodeLogLine[]): string {
  const handlers = Map.groupBy(lines, (line) => `${line.node}/${line.handler}`)
  const parts: string[] = []
  for (const [handler, own] of handlers) {
    const id = createHash('sha256').update(handler).digest('hex')
    const out = own.filter(({ level }) => level === 'debug' || level === 'info')
    const err = own.filter(({ level }) => level === 'warn' || level === 'error')
    for (const { atMs, text } of [...out, ...err]) {
      parts.push(`function=${name} handler=${id} ${goTime(atMs)} ${text}\n`)
    }
  }
  return parts.join('')
}

/** RFC3339Nano as Go prints it: no zeros at the end of the fraction. */
export function goTime(atMs: number): string {
  return new Date(atMs).toISOString().replace(/\.?0*Z$/, 'Z')
}
