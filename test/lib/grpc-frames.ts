import { grpcFrame, INVOKE, invokeMessage } from './grpc-http2.ts'
import { grpcBlock, type RawH2, u32 } from './raw-h2.ts'

/** A request of `echo`. */
export const ECHO = grpcFrame(invokeMessage('echo', 'hello'))
/** A request that takes a minute. */
export const SLOW = grpcFrame(invokeMessage('slow', '', 'ms=60000'))
/** The header of a request. */
export const BLOCK = grpcBlock(INVOKE)

/** Frame types. */
export const [DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
]
/** Flags. */
export const [END_STREAM, END_HEADERS, PADDED, PRIORITIZED] = [1, 4, 8, 32]
/** Error codes. */
export const CODE = {
  protocol: 1,
  flowControl: 3,
  closed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
}

export type Frame = readonly [type: number, flags: number, id: number, payload?: Uint8Array]

/** A setting as SETTINGS carries it. */
export const setting = (id: number, value: number): Buffer =>
  Buffer.concat([Buffer.from([0, id]), u32(value)])

/** A whole request. */
export const request = (id: number, frame = ECHO): Frame[] => [
  [HEADERS, END_HEADERS, id, BLOCK],
  [DATA, END_STREAM, id, frame],
]

/** Waits for the trailers of a stream; they hold the status as plain text. */
export async function statusOf(raw: RawH2, stream: number): Promise<string> {
  const { payload } = await raw.next(
    ({ type, flags, id }) => type === HEADERS && id === stream && (flags & END_STREAM) !== 0,
  )
  return /grpc-status.(\d+)/s.exec(payload.toString('latin1'))?.[1] ?? 'none'
}
