/** Option numbers (IANA, CoRE Parameters). Odd ones are critical: who does not know them must refuse the request. */
export const OPTION = {
  ifMatch: 1,
  uriHost: 3,
  etag: 4,
  ifNoneMatch: 5,
  observe: 6,
  uriPort: 7,
  locationPath: 8,
  uriPath: 11,
  contentFormat: 12,
  maxAge: 14,
  uriQuery: 15,
  accept: 17,
  locationQuery: 20,
  block2: 23,
  block1: 27,
  size2: 28,
  proxyUri: 35,
  proxyScheme: 39,
  size1: 60,
  noResponse: 258,
  requestTag: 292,
} as const

interface OptionRule {
  readonly bytesMin: number
  readonly bytesMax: number
  readonly repeats: boolean
}

/** Options of requests that are understood: RFC 7252 table 4, RFC 7959, RFC 7967, RFC 9175. */
export const REQUEST_OPTIONS: ReadonlyMap<number, OptionRule> = new Map([
  [OPTION.ifMatch, { bytesMin: 0, bytesMax: 8, repeats: true }],
  [OPTION.uriHost, { bytesMin: 1, bytesMax: 255, repeats: false }],
  [OPTION.etag, { bytesMin: 1, bytesMax: 8, repeats: true }],
  [OPTION.ifNoneMatch, { bytesMin: 0, bytesMax: 0, repeats: false }],
  [OPTION.observe, { bytesMin: 0, bytesMax: 3, repeats: false }],
  [OPTION.uriPort, { bytesMin: 0, bytesMax: 2, repeats: false }],
  [OPTION.uriPath, { bytesMin: 0, bytesMax: 255, repeats: true }],
  [OPTION.contentFormat, { bytesMin: 0, bytesMax: 2, repeats: false }],
  [OPTION.uriQuery, { bytesMin: 0, bytesMax: 255, repeats: true }],
  [OPTION.accept, { bytesMin: 0, bytesMax: 2, repeats: false }],
  [OPTION.block2, { bytesMin: 0, bytesMax: 3, repeats: false }],
  [OPTION.block1, { bytesMin: 0, bytesMax: 3, repeats: false }],
  [OPTION.size2, { bytesMin: 0, bytesMax: 4, repeats: false }],
  [OPTION.proxyUri, { bytesMin: 1, bytesMax: 1034, repeats: false }],
  [OPTION.proxyScheme, { bytesMin: 1, bytesMax: 255, repeats: false }],
  [OPTION.size1, { bytesMin: 0, bytesMax: 4, repeats: false }],
  [OPTION.noResponse, { bytesMin: 0, bytesMax: 1, repeats: false }],
  [OPTION.requestTag, { bytesMin: 0, bytesMax: 8, repeats: true }],
])
