import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { FRAME_LIMITS, ProtocolError, frameName } from './format.ts'
import { Fault } from '#shared/fault.ts'
import type { HeaderList, Invocation, PreparedHead } from '../model.ts'

const State = Type.Union([
  Type.Literal('empty'),
  Type.Literal('loading'),
  Type.Literal('ready'),
  Type.Literal('failed'),
])

/** Payload of HELLO. Unknown keys are ignored, as everywhere in this protocol. */
export const HelloMessage = Type.Object({
  protocol: Type.Object({ min: Type.Integer(), max: Type.Integer() }),
  handler: Type.String({ maxLength: 256 }),
  runtime: Type.String({ maxLength: 64 }),
  runner: Type.String({ maxLength: 64 }),
  pid: Type.Integer(),
  state: State,
  fn: Type.Optional(Type.String({ maxLength: 512 })),
  release: Type.Optional(Type.String({ maxLength: 256 })),
})
export type HelloMessage = Static<typeof HelloMessage>

/** Payload of READY. */
export const ReadyMessage = Type.Object({ ok: Type.Boolean(), error: Type.Optional(Type.String()) })
export type ReadyMessage = Static<typeof ReadyMessage>

const helloValidator = Compile(HelloMessage)
const readyValidator = Compile(ReadyMessage)

/** @throws ProtocolError when the payload is not JSON of this shape */
export function readHello(buffer: Buffer, start: number, end: number): HelloMessage {
  const value = readJson(0x01, buffer, start, end)
  if (helloValidator.Check(value)) return value
  throw new ProtocolError('HELLO lacks a field, or one has the wrong type')
}

/** @throws ProtocolError when the payload is not JSON of this shape */
export function readReady(buffer: Buffer, start: number, end: number): ReadyMessage {
  const value = readJson(0x04, buffer, start, end)
  if (readyValidator.Check(value)) return value
  throw new ProtocolError('READY lacks a field, or one has the wrong type')
}

function readJson(type: number, buffer: Buffer, start: number, end: number): unknown {
  try {
    return JSON.parse(buffer.toString('utf8', start, end))
  } catch (error) {
    throw new ProtocolError(`${frameName(type)} is not JSON`, { cause: error })
  }
}

/** Text of LOG, ERROR and READY, cut at 16 KiB. */
export function readText(buffer: Buffer, start: number, end: number): string {
  if (end - start <= FRAME_LIMITS.textBytesMax) return buffer.toString('utf8', start, end)
  return `${buffer.toString('utf8', start, start + FRAME_LIMITS.textBytesMax - 3)}...`
}

type HeadLines = Pick<Invocation, 'method' | 'path' | 'query' | 'headers' | 'protocol'>

/**
 * The head of a REQUEST: the invocation's lines and the two header fields that only the agent may set.
 *
 * @throws Fault `REQUEST_INVALID` when a field holds a line feed
 */
export function requestHead(invocation: HeadLines & Pick<Invocation, 'requestId'>): string {
  const { method, path, query, headers } = invocation
  const body = `${method}\n${path}\n${query}`
  let head = body
  let fields = 3
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index] ?? ''
    if (name.length >= 14 && OWN_FIELDS.has(name)) continue
    head += `\n${name}\n${headers[index + 1]}`
    fields += 2
  }
  head += `\nshoal-request-id\n${invocation.requestId}\nshoal-protocol\n${invocation.protocol}`
  fields += 4
  if (countLines(head) !== fields) {
    throw new Fault('REQUEST_INVALID', 'No part of a request may hold a line feed', {
      request: invocation.requestId,
    })
  }
  return head
}

/** An id of another length has no place in a head that is prepared. */
export const PREPARED_ID_BYTES = 32

/**
 * The head of all requests with these lines, whatever their ids.
 *
 * @throws Fault `REQUEST_INVALID` as `requestHead` and `headBytes`
 */
export function prepareHead(lines: HeadLines): PreparedHead {
  const head = requestHead({ ...lines, requestId: '0'.repeat(PREPARED_ID_BYTES) })
  // Not of the memory that small buffers share, all of which it would keep.
  const bytes = Buffer.allocUnsafeSlow(headBytes(head))
  bytes.write(head)
  const behindId = `\nshoal-protocol\n${lines.protocol}`.length
  return { bytes, idAt: bytes.length - behindId - PREPARED_ID_BYTES }
}

const OWN_FIELDS = new Set(['shoal-request-id', 'shoal-protocol'])

function countLines(text: string): number {
  let lines = 1
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lines += 1
  return lines
}

/**
 * Bytes of a head in UTF-8.
 *
 * @throws Fault `REQUEST_INVALID` when it is too long for a frame
 */
export function headBytes(head: string): number {
  const bytes = head.length > FRAME_LIMITS.headBytesMax ? head.length : Buffer.byteLength(head)
  if (bytes <= FRAME_LIMITS.headBytesMax) return bytes
  throw new Fault(
    'REQUEST_INVALID',
    `Path, query and headers have more than ${FRAME_LIMITS.headBytesMax} bytes together`,
    { headBytes: bytes, headBytesMax: FRAME_LIMITS.headBytesMax },
  )
}

/**
 * Header fields of a RESPONSE. Runners check what functions say; but a function has the runner's socket, too, and everything
 * behind the link relies on lower-case names and on values of one line.
 *
 * @throws ProtocolError when a name has no value, is no lower-case token, or its value has a line end or NUL
 */
export function responseHeaders(buffer: Buffer, start: number, end: number): HeaderList {
  if (start === end) return NO_HEADERS
  const headers = buffer.toString('utf8', start, end).split('\n')
  if (headers.length % 2 !== 0) {
    throw new ProtocolError(
      'RESPONSE has a header name without a value, or a value with a line feed',
    )
  }
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? ''
    if (FIELD_NAME.test(name) && !LINE_END.test(headers[at + 1] ?? '')) continue
    throw new ProtocolError(`RESPONSE has a header field ${JSON.stringify(name)} that cannot be`)
  }
  return headers
}

/** RFC 9110 section 5.6.2, lower-case. */
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/
// oxlint-disable-next-line no-control-regex -- these are the characters that end a line somewhere
const LINE_END = /[\r\0]/

const NO_HEADERS: HeaderList = []
