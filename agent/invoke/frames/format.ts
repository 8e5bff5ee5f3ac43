/** Frame types of the runner protocol (runtimes/PROTOCOL.md, section 2). */
export const FRAME = {
  hello: 0x01,
  welcome: 0x02,
  init: 0x03,
  ready: 0x04,
  shutdown: 0x05,
  request: 0x10,
  response: 0x11,
  data: 0x12,
  window: 0x13,
  cancel: 0x14,
  error: 0x15,
  log: 0x20,
  ping: 0x30,
  pong: 0x31,
} as const

export const HEADER_BYTES = 12

/** Flag bit: this frame ends its side's body. */
export const END = 0x01

/** Reasons of CANCEL. */
export const CANCEL = { callerGone: 0, deadline: 1, outputTooLarge: 2, shuttingDown: 3 } as const
export type CancelReason = (typeof CANCEL)[keyof typeof CANCEL]

/** Kinds of ERROR. */
export const ERROR_KIND = {
  functionError: 0,
  notReady: 1,
  badAnswer: 2,
  cancelled: 3,
  resources: 4,
  exited: 5,
} as const

/** Levels of LOG, by number. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const

/** Section 6 of the protocol. */
export const FRAME_LIMITS = {
  payloadBytesMax: 1_114_112,
  headBytesMax: 65_535,
  bodyFrameBytesMax: 1_048_576,
  windowBytesMin: 65_536,
  windowBytesMax: 1_048_576,
  windowBytes: 262_144,
  textBytesMax: 16_384,
  pingBytesMax: 64,
  /** HELLO and READY: an error text of 16 KiB, with room for JSON's escapes. */
  controlBytesMax: 131_072,
} as const

/** Most payload bytes by type; a longer one is refused when its header is read, before anything is kept. */
export const PAYLOAD_BYTES_MAX = new Uint32Array(256).fill(FRAME_LIMITS.payloadBytesMax)
PAYLOAD_BYTES_MAX[FRAME.hello] = FRAME_LIMITS.controlBytesMax
PAYLOAD_BYTES_MAX[FRAME.ready] = FRAME_LIMITS.controlBytesMax
PAYLOAD_BYTES_MAX[FRAME.ping] = FRAME_LIMITS.pingBytesMax
PAYLOAD_BYTES_MAX[FRAME.pong] = FRAME_LIMITS.pingBytesMax

/** Fewest payload bytes by type: its fixed fields. */
export const PAYLOAD_BYTES_MIN = new Uint8Array(256)
PAYLOAD_BYTES_MIN[FRAME.request] = 6
PAYLOAD_BYTES_MIN[FRAME.response] = 4
PAYLOAD_BYTES_MIN[FRAME.window] = 4
PAYLOAD_BYTES_MIN[FRAME.cancel] = 1
PAYLOAD_BYTES_MIN[FRAME.error] = 1
PAYLOAD_BYTES_MIN[FRAME.log] = 1

const NAMES = new Map<number, string>(
  Object.entries(FRAME).map(([name, type]) => [type, name.toUpperCase()]),
)

/** `RESPONSE`, or `frame 0x7f` for a type that has no name. */
export function frameName(type: number): string {
  return NAMES.get(type) ?? `frame 0x${type.toString(16).padStart(2, '0')}`
}

/** The other side broke the protocol: the connection ends, and this message is the reason given. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}
