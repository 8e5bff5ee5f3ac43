import type { Metadata } from '@grpc/grpc-js'
import type { HeaderList } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'

/** What only gRPC itself means. */
const RESERVED = /^(?::|grpc-|te$|content-type$|connection$|transfer-encoding$)/

/** A call's metadata as header fields; binary values (`-bin`) are base64. */
export function headersOfMetadata(metadata: Metadata): string[] {
  const headers: string[] = []
  for (const [name, value] of Object.entries(metadata.toHttp2Headers())) {
    if (value === undefined || RESERVED.test(name)) continue
    if (Array.isArray(value)) for (const one of value) headers.push(name, one)
    else headers.push(name, String(value))
  }
  return headers
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/
// eslint-disable-next-line no-control-regex -- Control characters are what it is about.
const LINE = /^[^\x00-\x08\x0a-\x1f\x7f]*$/

/**
 * The fields of a request message that travel in lines of text further on. gRPC's strings may hold anything, line feeds too.
 *
 * @throws Fault `REQUEST_INVALID`
 */
export function checkFields(request: {
  readonly method: string
  readonly path: string
  readonly query: string
  readonly contentType: string
  readonly metadata: Readonly<Record<string, string>>
}): void {
  const { method, path, query, contentType, metadata } = request
  if (method !== '' && !TOKEN.test(method)) throw invalid('method', method)
  if (path !== '' && !/^\/[\x21-\x7e]*$/.test(path)) throw invalid('path', path)
  if (!/^[\x21-\x7e]*$/.test(query)) throw invalid('query', query)
  if (!LINE.test(contentType)) throw invalid('content_type', contentType)
  for (const [name, value] of Object.entries(metadata)) {
    if (!TOKEN.test(name) || !LINE.test(value)) throw invalid('metadata', name)
  }
}

function invalid(field: string, value: string): Fault {
  return new Fault('REQUEST_INVALID', `${field} cannot be passed on: ${JSON.stringify(value)}`)
}

const NOT_PASSED = new Set(['content-type', 'content-length', 'connection', 'transfer-encoding'])

/** A function's header fields as a map; the content type travels apart, framing not at all. */
export function metadataOfHeaders(headers: HeaderList): {
  metadata: Record<string, string>
  contentType: string | undefined
} {
  const metadata = new Map<string, string>()
  let contentType: string | undefined
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at] ?? ''
    const value = headers[at + 1] ?? ''
    if (name === 'content-type') contentType = value
    if (NOT_PASSED.has(name)) continue
    const before = metadata.get(name)
    metadata.set(name, before === undefined ? value : `${before}, ${value}`)
  }
  return { metadata: Object.fromEntries(metadata), contentType }
}
