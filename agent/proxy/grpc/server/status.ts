import type { HeaderList } from '#agent/invoke/index.ts'
import { FAULTS, type Fault } from '#shared/fault.ts'
import { retryAfterMsOf } from '../../fault-answer.ts'

/** Numbers of grpc/doc/statuscodes.md that the server itself uses. */
export const STATUS = {
  unknown: 2,
  deadlineExceeded: 4,
  notFound: 5,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
} as const

/** How a call ends that fails. */
export interface Status {
  readonly code: number
  readonly message: string
  /** Trailing metadata, beside the status: name, value, name, value, ... */
  readonly trailers?: HeaderList
}

/** A call cannot go on, by a rule of the protocol. */
export class StatusError extends Error {
  override readonly name = 'StatusError'
  readonly status: Status

  constructor(status: Status, options?: ErrorOptions) {
    super(status.message, options)
    this.status = status
  }
}

/** How a call ends that fails: the fault's gRPC code, and in the trailing metadata what the code cannot say. */
export function statusOf(fault: Fault): Status {
  const { grpc, retry } = FAULTS[fault.code]
  const trailers = ['shoal-code', fault.code, 'shoal-retry', String(retry)]
  const retryAfterMs = retryAfterMsOf(fault)
  if (retryAfterMs !== undefined) trailers.push(...pushback(retryAfterMs))
  return { code: grpc, message: `${fault.code}: ${fault.message}`, trailers }
}

/** When to come back: for people and programs that look, and for gRPC clients that retry by themselves (gRFC A6). */
export function pushback(retryAfterMs: number): HeaderList {
  const ms = String(Math.ceil(retryAfterMs))
  return ['retry-after-ms', ms, 'grpc-retry-pushback-ms', ms]
}

/** The status as header fields. */
export function trailersOf({ code, message, trailers = [] }: Status): HeaderList {
  const fields = ['grpc-status', String(code)]
  if (message !== '') fields.push('grpc-message', percentEncode(message))
  return [...fields, ...trailers]
}

/** Longer ones are cut: peers take only so much of a header. */
const ENCODED_CHARS_MAX = 4_096

/** `grpc-message` is percent-encoded UTF-8: gRPC over HTTP/2, "Responses". */
function percentEncode(text: string): string {
  if (text.length <= ENCODED_CHARS_MAX && /^[\x20-\x24\x26-\x7e]*$/.test(text)) return text
  let encoded = ''
  for (const char of text) {
    const next = isPlain(char) ? char : percents(char)
    if (encoded.length + next.length > ENCODED_CHARS_MAX - 3) return `${encoded}...`
    encoded += next
  }
  return encoded
}

function isPlain(char: string): boolean {
  return char >= ' ' && char <= '~' && char !== '%'
}

function percents(char: string): string {
  const hex = Buffer.from(char).toString('hex').toUpperCase()
  return hex.replaceAll(/../g, '%$&')
}
