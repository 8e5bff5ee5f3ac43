import type { HeaderList } from '#agent/invoke/index.ts'

/** The header of a request, read in one pass. */
export interface RequestHead {
  readonly method: string
  readonly path: string
  /** `:authority`, else `host`. */
  readonly authority: string
  readonly contentType: string
  /** `grpc-timeout` as it came. */
  readonly timeout: string | undefined
  /** `grpc-encoding`, `identity` when none came. */
  readonly encoding: string
  /** The caller's metadata: names lower-case, binary values (`-bin`) as base64 with padding. */
  readonly metadata: HeaderList
}

/** @param raw - Name, value, name, value, ...; names lower-case and values without line feeds, which HTTP/2 sees to. */
export function readHead(raw: HeaderList): RequestHead {
  let method = ''
  let path = ''
  let authority: string | undefined
  let contentType = ''
  let timeout: string | undefined
  let encoding = 'identity'
  const metadata: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? ''
    const value = raw[at + 1] ?? ''
    if (name === ':method') method = value
    else if (name === ':path') path = value
    else if (name === ':authority') authority = value
    else if (name === 'content-type') contentType = value
    else if (name === 'grpc-timeout') timeout = value
    else if (name === 'grpc-encoding') encoding = value
    else if (!isReserved(name)) {
      if (name === 'host') authority ??= value
      metadata.push(name, name.endsWith('-bin') ? paddedBase64(value) : value)
    }
  }
  return { method, path, authority: authority ?? '', contentType, timeout, encoding, metadata }
}

/** True for what only HTTP/2 and gRPC themselves mean. */
function isReserved(name: string): boolean {
  return name.startsWith(':') || name.startsWith('grpc-') || CONNECTION_FIELDS.has(name)
}

const CONNECTION_FIELDS = new Set(['te', 'connection', 'transfer-encoding'])

/** Callers may leave out the padding, and join several values by commas. */
function paddedBase64(value: string): string {
  return value
    .split(',')
    .map((one) => Buffer.from(one, 'base64').toString('base64'))
    .join(', ')
}

const UNIT_MS = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 0.001, n: 0.000_001 } as const

/** A `grpc-timeout` (at most eight digits and a unit) in milliseconds; `undefined`: malformed. */
export function timeoutMsOf(text: string): number | undefined {
  const [, digits, unit = ''] = /^([0-9]{1,8})([HMSmun])$/.exec(text) ?? []
  return digits === undefined || !isUnit(unit) ? undefined : Number(digits) * UNIT_MS[unit]
}

function isUnit(text: string): text is keyof typeof UNIT_MS {
  return Object.hasOwn(UNIT_MS, text)
}

/** `application/grpc`, alone or with `+proto`, and parameters. Other codecs, and gRPC-Web, are other content types. */
export function isGrpc(contentType: string): boolean {
  return (
    contentType === 'application/grpc' || /^application\/grpc(\+proto)?(;|$)/i.test(contentType)
  )
}
