import type { RequestFields } from './fields.ts'
import type { RequestHead } from './request-parser.ts'

/** How long a request's body is; `chunked` says itself where it ends. */
export interface Framing {
  readonly chunked: boolean
  /** 0 when there is none, or when it is chunked. */
  readonly contentLength: number
}

/** Why a request is not served, nor anything behind it on its connection. */
export interface Refusal {
  readonly status: number
  readonly reason: string
}

/**
 * Where a request ends (RFC 9112 section 6), or why that is not certain. llhttp has refused what it knows to be ambiguous;
 * what it leaves to its user is refused here: a coding other than `chunked`, one in HTTP/1.0, a host that is missing or
 * named twice (section 3.2), a tunnel, and an expectation that nobody knows (RFC 9110 section 10.1.1).
 */
export function readFraming(head: RequestHead, fields: RequestFields): Framing | Refusal {
  const { transferEncoding, contentLength, hosts, expect } = fields
  const { method, version } = head
  if (method === 'CONNECT') return refusal('CONNECT is not served here')
  if (hosts > 1) return refusal('more than one Host')
  if (hosts === 0 && version === 11) return refusal('no Host')
  if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
    return { status: 417, reason: 'only 100-continue can be expected' }
  }
  if (transferEncoding === undefined) {
    if (contentLength === undefined) return NO_BODY
    if (!/^\d+$/.test(contentLength)) return refusal('Content-Length is not a number')
    return { chunked: false, contentLength: Number(contentLength) }
  }
  if (contentLength !== undefined) return refusal('both Content-Length and Transfer-Encoding')
  if (version !== 11) return refusal('Transfer-Encoding in HTTP/1.0')
  if (transferEncoding.toLowerCase() === 'chunked') return CHUNKED
  return refusal('a Transfer-Encoding other than chunked')
}

const NO_BODY: Framing = { chunked: false, contentLength: 0 }
const CHUNKED: Framing = { chunked: true, contentLength: 0 }

function refusal(reason: string): Refusal {
  return { status: 400, reason }
}
