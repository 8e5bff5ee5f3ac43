/**
 * The bytes of the runner protocol: frames out of a stream, frames into batches, and what the payloads say.
 * Depends on shared and typebox; knows no sockets and no calls.
 * Used by invoke/link and by the tests.
 */
export { FrameDecoder, byteAt, u16At, u32At } from './decoder.ts'
export type { FrameSink } from './decoder.ts'
export {
  CANCEL,
  END,
  ERROR_KIND,
  FRAME,
  FRAME_LIMITS,
  LOG_LEVELS,
  ProtocolError,
  frameName,
} from './format.ts'
export type { CancelReason } from './format.ts'
export {
  PREPARED_ID_BYTES,
  headBytes,
  prepareHead,
  readHello,
  readReady,
  readText,
  requestHead,
  responseHeaders,
} from './messages.ts'
export type { HelloMessage } from './messages.ts'
export { FrameWriter } from './writer.ts'
export type { FrameOutput } from './writer.ts'
