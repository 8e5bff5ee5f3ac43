import { collectBody } from '../body.ts'
import { guessContentType, TEXT } from '../content-type.ts'
import { retryAfterSecondsOf } from '../fault-answer.ts'
import type { HeaderList, Result } from '#agent/invoke/index.ts'
import { FAULTS, Fault } from '#shared/fault.ts'
import { type CoapOption, codeOf, TEXT_FORMAT, uintOption } from './codec.ts'
import { contentFormatOf } from './content-formats.ts'
import { OPTION } from './options.ts'

/** A response without what belongs to one message: type, message id, token, blocks. */
export interface Answer {
  readonly code: number
  readonly options: readonly CoapOption[]
  readonly payload: Buffer
}

export const CODE = {
  created: codeOf('2.01'),
  deleted: codeOf('2.02'),
  valid: codeOf('2.03'),
  changed: codeOf('2.04'),
  content: codeOf('2.05'),
  continue: codeOf('2.31'),
  badRequest: codeOf('4.00'),
  notAcceptable: codeOf('4.06'),
  incomplete: codeOf('4.08'),
  methodNotAllowed: codeOf('4.05'),
  unavailable: codeOf('5.03'),
} as const

const NOTHING = Buffer.alloc(0)

/** HTTP-like status to response code (RFC 8075 section 7, read backwards). What has no counterpart keeps its class. */
const CODE_BY_STATUS = new Map(
  ['4.00', '4.01', '4.03', '4.04', '4.05', '4.06', '4.08', '4.09', '4.12', '4.13', '4.15', '4.22']
    .concat('4.29', '5.00', '5.01', '5.02', '5.03', '5.04')
    .map((code) => [Number(code.replace('.', '')), codeOf(code)]),
)

function codeOfStatus(status: number, method: string): number {
  if (status === 200) return CODE.content
  if (status === 201) return CODE.created
  if (status === 204) return method === 'DELETE' ? CODE.deleted : CODE.changed
  if (status === 304) return CODE.valid
  if (status < 300) return CODE.content
  // A redirection means nothing to a CoAP client: it cannot follow it.
  if (status < 400) return codeOf('5.02')
  return CODE_BY_STATUS.get(status) ?? (status < 500 ? CODE.badRequest : codeOf('5.00'))
}

/**
 * A function's result as a response. The content type becomes a Content-Format; `etag`, `cache-control: max-age`, `retry-after` and
 * `location` become their options; other header fields have no place in CoAP.
 *
 * @param accept - Content-Format that the caller asks for. A function that names its type is held to it (4.06); one that names
 *   none is taken to answer as asked.
 * At once when the function's answer is whole.
 *
 * @throws Fault `FUNCTION_OUTPUT_TOO_LARGE`, `FUNCTION_BAD_ANSWER`
 */
export function answerOf(
  result: Result,
  method: string,
  accept: number | undefined,
  bodyBytesMax: number,
): Answer | Promise<Answer> {
  const { status, body } = result
  if (!(status >= 200 && status <= 599)) {
    if (!Buffer.isBuffer(body)) body.destroy()
    throw new Fault('FUNCTION_BAD_ANSWER', `the function answered with status ${status}`)
  }
  const payload = collectBody(body, bodyBytesMax)
  if (Buffer.isBuffer(payload)) return wholeAnswer(result, method, accept, payload)
  return payload.then((whole) => wholeAnswer(result, method, accept, whole))
}

/** What the last header fields became. A function's answers mostly have the same ones, which are the same list then. */
let last:
  | {
      readonly headers: HeaderList
      readonly status: number
      readonly method: string
      readonly accept: number | undefined
      readonly code: number
      readonly options: readonly CoapOption[]
    }
  | undefined

function wholeAnswer(
  result: Result,
  method: string,
  accept: number | undefined,
  payload: Buffer,
): Answer {
  const { headers, status } = result
  if (
    last?.headers === headers &&
    last.status === status &&
    last.method === method &&
    last.accept === accept
  ) {
    return { code: last.code, options: last.options, payload: status === 304 ? NOTHING : payload }
  }
  const code = codeOfStatus(status, method)
  const options: CoapOption[] = []
  let contentType: string | undefined
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const value = headers[at + 1] ?? ''
    const name = headers[at] ?? ''
    if (name === 'content-type') contentType = value
    else pushHeader(options, name, value)
  }
  const format = contentType === undefined ? accept : contentFormatOf(contentType)
  if (accept !== undefined && format !== accept && status < 300) {
    return answerText(CODE.notAcceptable, `the function answers as ${contentType}`)
  }
  if (format !== undefined) options.push(uintOption(OPTION.contentFormat, format))
  else if (contentType === undefined && code !== CODE.valid) {
    const text = guessContentType(payload) === TEXT
    options.push(text ? TEXT_FORMAT : uintOption(OPTION.contentFormat, 42))
  }
  // Where no field says what it is, the payload does.
  if (contentType !== undefined) last = { headers, status, method, accept, code, options }
  return { code, options, payload: status === 304 ? NOTHING : payload }
}

function pushHeader(options: CoapOption[], name: string, value: string): void {
  if (name === 'cache-control' || name === 'retry-after') {
    const seconds = /^\d{1,9}$/.exec(value)?.[0] ?? /\bmax-age=(\d{1,9})\b/.exec(value)?.[1]
    const stale = name === 'cache-control' && /\bno-(?:store|cache)\b/.test(value)
    if (options.some(({ number }) => number === OPTION.maxAge)) return
    if (stale) options.push(uintOption(OPTION.maxAge, 0))
    else if (seconds !== undefined) options.push(uintOption(OPTION.maxAge, Number(seconds)))
  } else if (name === 'etag') {
    const hex = /^"((?:[0-9a-f]{2}){1,8})"$/i.exec(value)?.[1]
    if (hex !== undefined) options.push({ number: OPTION.etag, value: Buffer.from(hex, 'hex') })
  } else if (name === 'location') {
    pushLocation(options, value)
  }
}

/** Only a path on this server can be told: Location-Path and Location-Query. */
function pushLocation(options: CoapOption[], location: string): void {
  if (!location.startsWith('/') || location.startsWith('//') || location.length > 255) return
  const [path = '', query] = location.split('?', 2)
  for (const segment of path.slice(1).split('/')) {
    options.push({ number: OPTION.locationPath, value: Buffer.from(decoded(segment)) })
  }
  for (const part of query?.split('&') ?? []) {
    options.push({ number: OPTION.locationQuery, value: Buffer.from(decoded(part)) })
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text // Not an escape after all.
  }
}

/** A response whose payload explains it to a person (RFC 7252 section 5.5.2): no Content-Format. */
export function answerText(code: number, text: string): Answer {
  return { code, options: [], payload: Buffer.from(text.slice(0, 512)) }
}

/** A fault's code of the table; when the caller may try again is its Max-Age (RFC 8516). */
export function answerFault(fault: Fault): Answer {
  const answer = answerText(codeOf(FAULTS[fault.code].coap), `${fault.code}: ${fault.message}`)
  const seconds = retryAfterSecondsOf(fault)
  if (seconds !== undefined) {
    return { ...answer, options: [uintOption(OPTION.maxAge, seconds)] }
  }
  const { bytesMax } = fault.details
  if (fault.code === 'BODY_TOO_LARGE' && typeof bytesMax === 'number') {
    return { ...answer, options: [uintOption(OPTION.size1, bytesMax)] }
  }
  return answer
}
