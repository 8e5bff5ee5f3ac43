/** Frame types of RFC 9113, section 6. */
export const FRAME = {
  data: 0x0,
  headers: 0x1,
  priority: 0x2,
  rstStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goaway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
} as const

export const FLAG = {
  ack: 0x1,
  endStream: 0x1,
  endHeaders: 0x4,
  padded: 0x8,
  priority: 0x20,
} as const

/** Error codes of section 7. */
export const CODE = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  enhanceYourCalm: 0xb,
} as const
export type Code = (typeof CODE)[keyof typeof CODE]

/** Section 6.5.2. */
export const SETTING = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
} as const

export const FRAME_HEADER_BYTES = 9
/** What we take; peers may take more, and are not sent more. */
export const FRAME_BYTES_MAX = 16_384
export const WINDOW_BYTES_MAX = 2 ** 31 - 1
/** Of streams and connections before either side has said otherwise. */
export const WINDOW_BYTES_DEFAULT = 65_535

/** The peer broke the protocol: the connection ends with this code. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError'
  readonly code: Code

  constructor(code: Code, message: string) {
    super(message)
    this.code = code
  }
}
