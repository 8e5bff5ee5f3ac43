import type { KnownOptions, KnownRun } from './known-options.ts'
import { OPTION } from './options.ts'

export const TYPE = { con: 0, non: 1, ack: 2, rst: 3 } as const

/** One option of a message: its number and its value as sent. */
export interface CoapOption {
  readonly number: number
  readonly value: Buffer
}

/** A message that follows RFC 7252 section 3. Token, option values and payload are views: of the datagram, option values perhaps of a copy. */
export interface CoapMessage {
  readonly type: 0 | 1 | 2 | 3
  /** Class and detail as on the wire, e.g. 0x45 for 2.05. */
  readonly code: number
  readonly messageId: number
  readonly token: Buffer
  /** In the order of their numbers. */
  readonly options: readonly CoapOption[]
  readonly payload: Buffer
  /** The options have come before. */
  readonly known: KnownRun | undefined
}

/**
 * `ignore`: not a CoAP message of version 1, or not worth an answer. `malformed`: a confirmable message that must be
 * rejected with a Reset (RFC 7252 section 4.2).
 */
export type Parsed = CoapMessage | 'ignore' | { readonly malformed: number }

const TYPES = [TYPE.con, TYPE.non, TYPE.ack, TYPE.rst] as const
const EMPTY = Buffer.alloc(0)
const LOOP_BYTES_MAX = 16

/** Options that one message may carry; more is not honest. */
const OPTIONS_MAX = 64

/** Code number of its dotted form, e.g. `4.04`. */
export function codeOf(dotted: string): number {
  const dot = dotted.indexOf('.')
  return (Number(dotted.slice(0, dot)) << 5) | Number(dotted.slice(dot + 1))
}

/**
 * Reads a datagram, strictly: unlike `coap-packet`, which clips what is cut off, it refuses every message format error. That
 * is why the server has a codec of its own; a test holds the two to each other on everything that is well-formed.
 *
 * @param before - where requests' options are looked for first
 */
export function parseMessage(datagram: Buffer, before?: KnownOptions): Parsed {
  const head = datagram[0] ?? 0
  const code = datagram[1] ?? 0
  const type = TYPES[(head >> 4) & 3]
  if (datagram.length < 4 || head >> 6 !== 1 || type === undefined) return 'ignore'
  const tokenBytes = head & 15
  const messageId = ((datagram[2] ?? 0) << 8) | (datagram[3] ?? 0)
  const refused: Parsed = type === TYPE.con ? { malformed: messageId } : 'ignore'
  if (code === 0) {
    if (datagram.length !== 4 || tokenBytes !== 0) return refused
    return { type, code, messageId, token: EMPTY, options: [], payload: EMPTY, known: undefined }
  }
  const start = 4 + tokenBytes
  const codeClass = code >> 5
  if (tokenBytes > 8 || start > datagram.length) return refused
  if (codeClass === 1 || codeClass > 5) return refused
  const token = tokenBytes === 0 ? EMPTY : datagram.subarray(4, start)
  let known = codeClass === 0 ? before?.find(code, datagram, start) : undefined
  if (known !== undefined) {
    const end = start + known.bytes.length
    const payload = end === datagram.length ? EMPTY : datagram.subarray(end + 1)
    return { type, code, messageId, token, options: known.options, payload, known }
  }
  const options: CoapOption[] = []
  const payloadAt = readOptions(datagram, start, options)
  if (payloadAt < 0) return refused
  const payload = datagram.subarray(payloadAt)
  if (codeClass === 0) {
    const end = payload.length === 0 ? payloadAt : payloadAt - 1
    known = before?.learn(code, datagram, start, end, allOptions)
  }
  return { type, code, messageId, token, options, payload, known }
}

/** Of bytes that are nothing else, and have been read before. */
function allOptions(bytes: Buffer): readonly CoapOption[] {
  const options: CoapOption[] = []
  readOptions(bytes, 0, options)
  return options
}

/** Reads options from `at` into `options`; returns where the payload starts, or -1 for a message format error. */
function readOptions(datagram: Buffer, at: number, options: CoapOption[]): number {
  let number = 0
  while (at < datagram.length) {
    const head = datagram[at++] ?? 0
    // A payload marker that nothing follows is an error (RFC 7252 section 3).
    if (head === 0xff) return at < datagram.length ? at : -1
    let delta = head >> 4
    let bytes = head & 15
    if (delta === 13) delta = (datagram[at++] ?? Number.NaN) + 13
    else if (delta === 14) {
      delta = (((datagram[at] ?? 0) << 8) | (datagram[at + 1] ?? Number.NaN)) + 269
      at += 2
    } else if (delta === 15) return -1
    if (bytes === 13) bytes = (datagram[at++] ?? Number.NaN) + 13
    else if (bytes === 14) {
      bytes = (((datagram[at] ?? 0) << 8) | (datagram[at + 1] ?? Number.NaN)) + 269
      at += 2
    } else if (bytes === 15) return -1
    number += delta
    // Also false when the datagram ended inside one of the numbers.
    if (!(at + bytes <= datagram.length && number <= 0xffff)) return -1
    if (options.length === OPTIONS_MAX) return -1
    options.push({ number, value: datagram.subarray(at, at + bytes) })
    at += bytes
  }
  return at
}

/** What is to be sent; options in any order. */
export interface CoapReply {
  readonly type: 0 | 1 | 2 | 3
  readonly code: number
  readonly messageId: number
  readonly token: Buffer
  readonly options: readonly CoapOption[]
  readonly payload: Buffer
}

export function encodeMessage(reply: CoapReply): Buffer {
  const { token, payload } = reply
  const options =
    reply.options.length > 1 ? reply.options.toSorted((a, b) => a.number - b.number) : reply.options
  let bytes = 4 + token.length + (payload.length > 0 ? payload.length + 1 : 0)
  let before = 0
  for (const { number, value } of options) {
    bytes += 1 + extendedBytes(number - before) + extendedBytes(value.length) + value.length
    before = number
  }
  const out = Buffer.allocUnsafe(bytes)
  out[0] = 0x40 | (reply.type << 4) | token.length
  out[1] = reply.code
  out[2] = reply.messageId >> 8
  out[3] = reply.messageId & 0xff
  let at = put(token, out, 4)
  let last = 0
  for (const { number, value } of options) {
    at = writeOption(out, at, number - last, value)
    last = number
  }
  if (payload.length > 0) {
    out[at++] = 0xff
    put(payload, out, at)
  }
  return out
}

function writeOption(out: Buffer, at: number, delta: number, value: Buffer): number {
  const head = at++
  const deltaNibble = nibbleOf(delta)
  const bytesNibble = nibbleOf(value.length)
  out[head] = (deltaNibble << 4) | bytesNibble
  at = writeExtended(out, at, delta, deltaNibble)
  at = writeExtended(out, at, value.length, bytesNibble)
  return put(value, out, at)
}

/** For few bytes, as most are, a loop costs less than the way to the machine's own. */
function put(bytes: Buffer, out: Buffer, at: number): number {
  if (bytes.length > LOOP_BYTES_MAX) out.set(bytes, at)
  else for (let from = 0; from < bytes.length; from++) out[at + from] = bytes[from] ?? 0
  return at + bytes.length
}

function nibbleOf(number: number): number {
  return number < 13 ? number : number < 269 ? 13 : 14
}

/** How many bytes `writeExtended` writes. */
function extendedBytes(number: number): number {
  return number < 13 ? 0 : number < 269 ? 1 : 2
}

function writeExtended(out: Buffer, at: number, number: number, nibble: number): number {
  if (nibble === 13) out[at++] = number - 13
  else if (nibble === 14) {
    out[at++] = (number - 269) >> 8
    out[at++] = (number - 269) & 0xff
  }
  return at
}

/** A message without code, token and payload: an empty ACK, or a Reset. */
export function encodeEmpty(type: 2 | 3, messageId: number): Buffer {
  return Buffer.from([0x40 | (type << 4), 0, messageId >> 8, messageId & 0xff])
}

/** An option whose value is a number, in as few bytes as it needs: none for 0. */
export function uintOption(number: number, value: number): CoapOption {
  if (value === 0) return { number, value: EMPTY }
  const bytes = value > 0xffffff ? 4 : value > 0xffff ? 3 : value > 0xff ? 2 : 1
  const buffer = Buffer.allocUnsafe(bytes)
  buffer.writeUIntBE(value, 0, bytes)
  return { number, value: buffer }
}

export function uintOf(value: Buffer): number {
  return value.length === 0 ? 0 : value.readUIntBE(0, value.length)
}

/** The Content-Format option of `text/plain;charset=utf-8`, which nearly every answer carries. */
export const TEXT_FORMAT: CoapOption = { number: OPTION.contentFormat, value: EMPTY }
