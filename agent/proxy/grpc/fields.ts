import type { HeaderList } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'

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
  readonly metadata: HeaderList
}): void {
  const { method, path, query, contentType, metadata } = request
  if (method !== '' && !TOKEN.test(method)) throw invalid('method', method)
  if (path !== '' && !/^\/[\x21-\x7e]*$/.test(path)) throw invalid('path', path)
  if (query !== '' && !/^[\x21-\x7e]*$/.test(query)) throw invalid('query', query)
  if (contentType !== '' && !LINE.test(contentType)) throw invalid('content_type', contentType)
  for (let at = 0; at + 1 < metadata.length; at += 2) {
    const name = metadata[at] ?? ''
    if (!TOKEN.test(name) || !LINE.test(metadata[at + 1] ?? '')) throw invalid('metadata', name)
  }
}

function invalid(field: string, value: string): Fault {
  return new Fault('REQUEST_INVALID', `${field} cannot be passed on: ${JSON.stringify(value)}`)
}

/** The first value of that name. */
export function fieldOf(list: HeaderList, name: string): string | undefined {
  for (let at = 0; at + 1 < list.length; at += 2) if (list[at] === name) return list[at + 1]
  return undefined
}

const NOT_PASSED = new Set(['content-type', 'content-length', 'connection', 'transfer-encoding'])

/** A function's header fields, values of a repeated one joined; the content type travels apart, framing not at all. */
export function metadataOfHeaders(headers: HeaderList): {
  metadata: HeaderList
  contentType: string | undefined
} {
  const values = new Map<string, string>()
  let contentType: string | undefined
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at] ?? ''
    const value = headers[at + 1] ?? ''
    if (name === 'content-type') contentType = value
    if (NOT_PASSED.has(name)) continue
    const before = values.get(name)
    values.set(name, before === undefined ? value : `${before}, ${value}`)
  }
  return { metadata: values.size === 0 ? NOTHING : [...values].flat(), contentType }
}

const NOTHING: HeaderList = []
