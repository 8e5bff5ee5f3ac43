import type { Body } from '../model.ts'

/** What stands where a REQUEST to a runner has its method: to which function, and how many bytes a body has that is to arrive whole. */
export interface RequestLine {
  readonly fn: string
  readonly method: string
  /** Undefined: the body is a stream. */
  readonly wholeBytes: number | undefined
}

export function requestLine(fn: string, method: string, body: Body): string {
  return `${fn} ${method} ${Buffer.isBuffer(body) ? body.length : ''}`
}

export function readRequestLine(line: string): RequestLine {
  const method = line.indexOf(' ') + 1
  const bytes = line.lastIndexOf(' ') + 1
  return {
    fn: line.slice(0, method - 1),
    method: line.slice(method, bytes - 1),
    wholeBytes: bytes === line.length ? undefined : Number(line.slice(bytes)),
  }
}
