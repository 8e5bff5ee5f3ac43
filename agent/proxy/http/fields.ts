import type { HeaderList } from '#agent/invoke/index.ts'

/** Fields about this connection only (RFC 9110 section 7.6.1), and those that the proxy itself answers or makes anew. */
const REQUEST_DROPPED = new Set([
  'connection',
  'expect',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
const ANSWER_DROPPED = new Set([
  'connection',
  'content-length',
  'keep-alive',
  'proxy-authenticate',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-request-id',
])

/** What the proxy itself reads from a request's header, and what the function gets of it. */
export interface RequestFields {
  /** Names lower-case, without the fields that end here. */
  readonly forFunction: HeaderList
  /** -1: not given. */
  readonly contentLength: number
  readonly chunked: boolean
  readonly requestId: string | undefined
  readonly deadline: string | undefined
  /** `X-tinyFaaS-Async` with any value but the empty one. */
  readonly background: boolean
}

/** Reads a request's header in one pass. llhttp has checked it: lengths are numbers, no value holds a line feed. */
export function readRequestFields(raw: readonly string[]): RequestFields {
  const forFunction: string[] = []
  let contentLength = -1
  let chunked = false
  let requestId: string | undefined
  let deadline: string | undefined
  let background = false
  let named: string | undefined
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase()
    const value = raw[at + 1] ?? ''
    if (REQUEST_DROPPED.has(name)) {
      if (name === 'transfer-encoding') chunked = true
      else if (name === 'connection') named = named === undefined ? value : `${named},${value}`
      continue
    }
    if (name === 'content-length') contentLength = Number(value)
    else if (name === 'x-request-id') requestId = value
    else if (name === 'x-shoal-deadline-ms') deadline = value
    else if (name === 'x-tinyfaas-async') background = value !== ''
    forFunction.push(name, value)
  }
  return {
    forFunction: withoutNamed(forFunction, named),
    contentLength,
    chunked,
    requestId,
    deadline,
    background,
  }
}

/** What goes back to the caller of a function's header. */
export interface AnswerFields {
  readonly headers: string[]
  readonly typed: boolean
  /** The function's own, which is only right for an answer whose body is not sent (HEAD, 304). */
  readonly contentLength: string | undefined
}

/** A function's header without what only the proxy can know (framing) and what belongs to one connection. */
export function readAnswerFields(list: HeaderList): AnswerFields {
  const headers: string[] = []
  let typed = false
  let contentLength: string | undefined
  let named: string | undefined
  for (let at = 0; at + 1 < list.length; at += 2) {
    const name = list[at] ?? ''
    const value = list[at + 1] ?? ''
    if (ANSWER_DROPPED.has(name)) {
      if (name === 'content-length') contentLength = value
      else if (name === 'connection') named = named === undefined ? value : `${named},${value}`
      continue
    }
    if (name === 'content-type') typed = true
    headers.push(name, value)
  }
  return { headers: withoutNamed(headers, named), typed, contentLength }
}

/** Drops the fields that a `Connection` field names; almost always it names none. */
function withoutNamed(list: string[], connection: string | undefined): string[] {
  if (connection === undefined) return list
  const names = connection
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && name !== 'close' && name !== 'keep-alive')
  if (names.length === 0) return list
  const kept: string[] = []
  for (let at = 0; at + 1 < list.length; at += 2) {
    if (!names.includes(list[at] ?? '')) kept.push(list[at] ?? '', list[at + 1] ?? '')
  }
  return kept
}
