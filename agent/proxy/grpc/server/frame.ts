import { PREFIX_BYTES } from './message-reader.ts'

/** Room for a message of so many bytes behind its prefix (uncompressed); the message goes to `PREFIX_BYTES`. */
export function frameFor(messageBytes: number): Buffer {
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + messageBytes)
  frame[0] = 0
  frame.writeUInt32BE(messageBytes, 1)
  return frame
}

/** A message with its prefix. */
export function frameOf(message: Uint8Array): Buffer {
  const frame = frameFor(message.length)
  frame.set(message, PREFIX_BYTES)
  return frame
}
