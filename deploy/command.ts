import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'

const OUTPUT_LINES_MAX = 200

export interface CommandOptions {
  /** Added to this process' environment. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Default 600,000. */
  readonly timeoutMs?: number
}

/**
 * Runs a program to its end; resolves to its output (last lines of stdout and stderr).
 * @throws Error with these lines when it cannot be started, fails, or takes too long
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions,
  signal: AbortSignal,
): Promise<string> {
  const timeoutMs = options.timeoutMs ?? 600_000
  const child = spawn(command, [...args], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    killSignal: 'SIGKILL',
  })
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) => {
      lines.push(line)
      if (lines.length > OUTPUT_LINES_MAX) lines.shift()
    })
  }
  const ended = Promise.withResolvers<string>()
  child.once('error', (error) => ended.resolve(error.message))
  child.once('close', (code, killed) => ended.resolve(killed ?? `exit code ${code}`))
  const how = await ended.promise
  signal.throwIfAborted()
  if (how === 'exit code 0') return lines.join('\n')
  throw new Error(`${command} ${args.join(' ')}: ${how}\n${lines.slice(-15).join('\n')}`)
}

/** Folders where distributions put servers, which are not on everybody's PATH. */
const MORE_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/local/go/bin']

/** Full path of a program on PATH, in a system folder, or in one of `folders` (looked at first). */
export function findProgram(name: string, folders: readonly string[] = []): string | undefined {
  const path = (process.env['PATH'] ?? '').split(delimiter)
  for (const folder of [...folders, ...path, ...MORE_FOLDERS]) {
    const file = join(folder, name)
    try {
      accessSync(file, constants.X_OK)
      return file
    } catch {
      // Not here; the next folder may have it.
    }
  }
  return undefined
}
