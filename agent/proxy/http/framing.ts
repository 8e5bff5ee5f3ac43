import type { RequestFields } from './fields.ts'

/** How long a request's body is; `chunked` says itself where it ends. */
export interface Framing {
  readonly chunked: boolean
  /** 0 when there is none, or when it is chunked. */
  readonly contentLength: number
}

/**
 * Where a request ends (RFC 9112 section 6), or why that is not certain. llhttp has refused what it knows to be ambiguous;
 * what it leaves to its user is refused here: a coding other than `chunked`, one in HTTP/1.0, and a host that is missing or
 * named twice (section 3.2).
 */
export function readFraming(fields: RequestFields, version: number): Framing | string {
  const { transferEncoding, contentLength, hosts } = fields
  if (hosts > 1) return 'more than one Host'
  if (hosts === 0 && version === 11) return 'no Host'
  if (transferEncoding === undefined) {
    if (contentLength === undefined) return NO_BODY
    if (!/^\d+$/.test(contentLength)) return 'Content-Length is not a number'
    return { chunked: false, contentLength: Number(contentLength) }
  }
  if (contentLength !== undefined) return 'both Content-Length and Transfer-Encoding'
  if (version !== 11) return 'Transfer-Encoding in HTTP/1.0'
  if (transferEncoding.toLowerCase() !== 'chunked') return 'a Transfer-Encoding other than chunked'
  return CHUNKED
}

const NO_BODY: Framing = { chunked: false, contentLength: 0 }
const CHUNKED: Framing = { chunked: true, contentLength: 0 }
