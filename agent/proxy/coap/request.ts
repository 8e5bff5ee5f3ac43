import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import { type Block, readBlock } from './block.ts'
import { type CoapMessage, codeOf, uintOf } from './codec.ts'
import { contentTypeOf } from './content-formats.ts'
import type { KnownRun } from './known-options.ts'
import { OPTION, REQUEST_OPTIONS } from './options.ts'

/** By code; `iPATCH` is upper-case as every method in an invocation. */
const METHODS = ['', 'GET', 'POST', 'PUT', 'DELETE', 'FETCH', 'PATCH', 'IPATCH']

/** A request's options, read and turned into what an invocation holds. */
export interface CoapRequest {
  readonly method: string
  /** Percent-encoded, without the leading `/`. */
  readonly path: string
  /** Percent-encoded, without the leading `?`. */
  readonly query: string
  readonly headers: readonly string[]
  readonly accept: number | undefined
  readonly block1: Block | undefined
  readonly block2: Block | undefined
  /** What the caller says that its whole body has. */
  readonly size1: number | undefined
  /** RFC 7967: bit 2 no 2.xx, bit 8 no 4.xx, bit 16 no 5.xx. */
  readonly noResponse: number
  /** Of a GET: 0 registers an observation, 1 ends it (RFC 7641 section 2). */
  readonly observe: number | undefined
  /** The options that are told by `headers`, and Request-Tag. */
  readonly format: number | undefined
  readonly tag: string
}

/**
 * Of the payload that is part of the question: that of a FETCH (RFC 8132 section 2), unless it came in blocks: those that ask for
 * the rest of an answer do not send it again.
 */
export function bodyDigestOf({ method, block1 }: CoapRequest, payload: Buffer): string | undefined {
  if (method !== 'FETCH' || block1 !== undefined || payload.length === 0) return undefined
  return hash('sha256', payload, 'base64')
}

/** What makes two requests parts of one block-wise transfer (RFC 7959 section 2.4), but for the peer and `bodyDigestOf`. */
export function transferOf({ method, accept, format, tag, path, query }: CoapRequest): string {
  return `${method} ${accept} ${format} ${tag} ${path}?${query}`
}

/** Why a request cannot be served. `badOption`: RFC 7252 section 5.4.1 treats it apart when it is not confirmable. */
export interface Refusal {
  readonly refused: number
  readonly text: string
  readonly badOption: boolean
}

const read = new WeakMap<KnownRun, CoapRequest | Refusal>()

/** Once only for options that are known. */
export function readRequest(message: CoapMessage): CoapRequest | Refusal {
  const { known } = message
  if (known === undefined) return readOptions(message)
  let request = read.get(known)
  if (request === undefined) {
    request = readOptions(message)
    read.set(known, request)
  }
  return request
}

function readOptions(message: CoapMessage): CoapRequest | Refusal {
  const method = METHODS[message.code]
  if (method === undefined) return refusal('4.05', `unknown method 0.${message.code}`)
  const reader = new RequestReader(method)
  let last = -1
  for (const { number, value } of message.options) {
    const rule = REQUEST_OPTIONS.get(number)
    const fits =
      rule !== undefined &&
      value.length >= rule.bytesMin &&
      value.length <= rule.bytesMax &&
      (rule.repeats || number !== last)
    last = number
    if (fits) {
      const refused = reader.option(number, value)
      if (refused !== undefined) return refused
    } else if (number % 2 === 1) {
      return { ...refusal('4.02', `option ${number} is not understood`), badOption: true }
    }
  }
  return reader.done()
}

class RequestReader {
  readonly #method: string
  readonly #headers: string[] = []
  #path = ''
  #segments = 0
  #query = ''
  #queries = 0
  #accept: number | undefined
  #format: number | undefined
  #block1: Block | undefined
  #block2: Block | undefined
  #size1: number | undefined
  #noResponse = 0
  #observe: number | undefined
  #tag = ''

  constructor(method: string) {
    this.#method = method
  }

  option(number: number, value: Buffer): Refusal | undefined {
    switch (number) {
      case OPTION.uriPath: {
        const segment = encodeSegment(value)
        if (segment === undefined) return refusal('4.00', 'a path segment is not text')
        this.#path = this.#segments++ === 0 ? segment : `${this.#path}/${segment}`
        return undefined
      }
      case OPTION.uriQuery: {
        if (!isUtf8(value)) return refusal('4.00', 'a query is not text')
        const part = encodeQuery(value.toString())
        this.#query = this.#queries++ === 0 ? part : `${this.#query}&${part}`
        return undefined
      }
      case OPTION.contentFormat:
        this.#format = uintOf(value)
        return undefined
      case OPTION.accept:
        this.#accept = uintOf(value)
        return undefined
      case OPTION.block1:
        this.#block1 = readBlock(value)
        return this.#block1 === undefined ? refusal('4.00', 'block size 7 is reserved') : undefined
      case OPTION.block2:
        this.#block2 = readBlock(value)
        return this.#block2 === undefined ? refusal('4.00', 'block size 7 is reserved') : undefined
      case OPTION.proxyUri:
      case OPTION.proxyScheme:
        return refusal('5.05', 'this server is no forward proxy')
      default:
        this.#plainOption(number, value)
        return undefined
    }
  }

  /** Those that cannot be wrong. */
  #plainOption(number: number, value: Buffer): void {
    if (number === OPTION.size1) this.#size1 = uintOf(value)
    else if (number === OPTION.noResponse) this.#noResponse = uintOf(value)
    else if (number === OPTION.observe) this.#observe = uintOf(value)
    else if (number === OPTION.requestTag) this.#tag += `${value.toString('hex')}.`
    else if (number === OPTION.etag)
      this.#headers.push('if-none-match', `"${value.toString('hex')}"`)
    else if (number === OPTION.ifNoneMatch) this.#headers.push('if-none-match', '*')
    else if (number === OPTION.ifMatch) {
      this.#headers.push('if-match', value.length === 0 ? '*' : `"${value.toString('hex')}"`)
    } else if (number === OPTION.uriHost) {
      const host = value.toString('latin1')
      if (/^[\x21-\x7e]+$/.test(host)) this.#headers.push('host', host)
    }
  }

  done(): CoapRequest {
    const headers = this.#headers
    const format = this.#format
    if (format !== undefined) {
      const type = contentTypeOf(format)
      headers.push('content-type', type ?? 'application/octet-stream')
      if (type === undefined) headers.push('coap-content-format', String(format))
    }
    const accepted = this.#accept === undefined ? undefined : contentTypeOf(this.#accept)
    // Who wants no response at all observes nothing.
    const observe = this.#method === 'GET' && this.#noResponse === 0 ? this.#observe : undefined
    if (observe === 0) {
      const stream = 'text/event-stream'
      headers.push('accept', accepted === undefined ? stream : `${stream}, ${accepted}`)
    } else if (accepted !== undefined) headers.push('accept', accepted)
    return {
      method: this.#method,
      path: this.#path,
      query: this.#query,
      headers,
      accept: this.#accept,
      block1: this.#block1,
      block2: this.#block2,
      size1: this.#size1,
      noResponse: this.#noResponse,
      observe,
      format,
      tag: this.#tag,
    }
  }
}

function refusal(code: string, text: string): Refusal {
  return { refused: codeOf(code), text, badOption: false }
}

const PLAIN_SEGMENT = /^[A-Za-z0-9._~-]*$/
const PLAIN_QUERY = /^[A-Za-z0-9._~=/:,-]*$/

/** `undefined` for what is no segment: not UTF-8, `.` or `..` (RFC 7252 section 5.10.1). */
function encodeSegment(value: Buffer): string | undefined {
  const plain = value.toString('latin1')
  if (plain === '.' || plain === '..') return undefined
  if (PLAIN_SEGMENT.test(plain)) return plain
  return isUtf8(value) ? encodeURIComponent(value.toString()) : undefined
}

function encodeQuery(text: string): string {
  if (PLAIN_QUERY.test(text)) return text
  return encodeURIComponent(text).replaceAll(/%(3D|2F|3A|40|3F|2C|3B)/g, decodeURIComponent)
}
