/** Numbers of the runner protocol (see ../PROTOCOL.md), and the error that ends a connection. */
export const TYPE = {
  HELLO: 0x01,
  WELCOME: 0x02,
  INIT: 0x03,
  READY: 0x04,
  SHUTDOWN: 0x05,
  REQUEST: 0x10,
  RESPONSE: 0x11,
  DATA: 0x12,
  WINDOW: 0x13,
  CANCEL: 0x14,
  ERROR: 0x15,
  LOG: 0x20,
  PING: 0x30,
  PONG: 0x31,
} as const

export const END = 0x01
export const PREFIX_BYTES = 12

export const KIND = {
  FUNCTION: 0,
  NOT_READY: 1,
  BAD_ANSWER: 2,
  CANCELLED: 3,
  LIMIT: 4,
} as const

export const LEVEL = { DEBUG: 0, INFO: 1, WARN: 2, ERROR: 3 } as const

export const LIMIT = {
  payloadBytes: 1_114_112,
  headBytes: 65_535,
  windowBytes: 262_144,
  textBytes: 16_384,
  logLines: 1_000,
  logLineBytes: 16_384,
  logBytes: 1_048_576,
  pingBytes: 64,
  greetingMs: 5_000,
  frameBodyBytes: 1_048_576,
  /** A request body that is read as a whole; the agent's own limit is lower. */
  bodyBytes: 67_108_864,
  /** What a function may write ahead of a slow caller, paying no heed to backpressure, before its call is ended. Less in a small handler: see `exceedsUnsent`. */
  unsentBytes: 67_108_864,
} as const

/** The other side broke the protocol: the connection is closed. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
  /** A word of the vectors in `../vectors/streams.json`. */
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Text of at most `bytesMax` bytes in UTF-8, cut at the end with `...`. */
export function cut(text: string, bytesMax: number): string {
  if (text.length * 3 <= bytesMax) return text
  const bytes = Buffer.from(text)
  if (bytes.length <= bytesMax) return text
  let end = bytesMax - 3
  // Not in the middle of a character: continuation bytes are 10xxxxxx.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1
  return `${bytes.toString('utf8', 0, end)}...`
}

/** Any thrown value as text for a person: the stack when there is one. */
export function describe(error: unknown): string {
  try {
    if (error instanceof Error) return error.stack ?? String(error)
    return typeof error === 'string' ? error : String(error)
  } catch {
    return 'the function threw a value that cannot be shown'
  }
}
