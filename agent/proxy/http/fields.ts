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
  readonly contentLength: string | undefined
  /** All of its values, joined by commas. */
  readonly transferEncoding: string | undefined
  /** How many fields name a host. */
  readonly hosts: number
  readonly expect: string | undefined
  readonly requestId: string | undefined
  readonly deadline: string | undefined
  /** `X-tinyFaaS-Async` with any value but the empty one. */
  readonly background: boolean
}

/** Reads a request's header in one pass. llhttp has checked it: names are tokens, no value holds a line feed. */
export function readRequestFields(raw: readonly string[]): RequestFields {
  const forFunction: string[] = []
  let contentLength: string | undefined
  let transferEncoding: string | undefined
  let hosts = 0
  let expect: string | undefined
  let requestId: string | undefined
  let deadline: string | undefined
  let background = false
  let named: string | undefined
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase()
    const value = withoutSpaceBehind(raw[at + 1] ?? '')
    if (REQUEST_DROPPED.has(name)) {
      if (name === 'transfer-encoding') transferEncoding = joined(transferEncoding, value)
      else if (name === 'connection') named = joined(named, value)
      else if (name === 'expect') expect = joined(expect, value)
      continue
    }
    if (name === 'content-length') contentLength = joined(contentLength, value)
    else if (name === 'host') hosts += 1
    else if (name === 'x-request-id') requestId = value
    else if (name === 'x-shoal-deadline-ms') deadline = value
    else if (name === 'x-tinyfaas-async') background = value !== ''
    forFunction.push(name, value)
  }
  return {
    forFunction: withoutNamed(forFunction, named),
    contentLength,
    transferEncoding,
    hosts,
    expect,
    requestId,
    deadline,
    background,
  }
}

function joined(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before},${value}`
}

/** llhttp leaves it to its user to take off the spaces and tabs behind a value. */
function withoutSpaceBehind(value: string): string {
  let end = value.length
  while (end > 0 && isSpace(value.charCodeAt(end - 1))) end -= 1
  return end === value.length ? value : value.slice(0, end)
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/** What goes back to the caller of a function's header. */
export interface AnswerFields {
  readonly headers: string[]
  readonly typed: boolean
  readonly dated: boolean
  /** The function's own, which is only right for an answer whose body is not sent (HEAD, 304). */
  readonly contentLength: string | undefined
}

/** A function's header without what only the proxy can know (framing) and what belongs to one connection. */
export function readAnswerFields(list: HeaderList): AnswerFields {
  const headers: string[] = []
  let typed = false
  let dated = false
  let contentLength: string | undefined
  let named: string | undefined
  for (let at = 0; at + 1 < list.length; at += 2) {
    const name = list[at] ?? ''
    const value = list[at + 1] ?? ''
    if (ANSWER_DROPPED.has(name)) {
      if (name === 'content-length') contentLength = value
      else if (name === 'connection') named = joined(named, value)
      continue
    }
    if (name === 'content-type') typed = true
    else if (name === 'date') dated = true
    headers.push(name, value)
  }
  return { headers: withoutNamed(headers, named), typed, dated, contentLength }
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
