import { room } from '#agent/sockets/index.ts'

/** All sockets read into this one buffer: what was read is consumed before the next read of any of them. */
export const READ_BUFFER = Buffer.allocUnsafeSlow(Math.min(96 * 1024, room.windowBytes))

/** What comes with the head of a request that then has to wait is kept: not much of it where many wait. */
const SHORT_BUFFER = READ_BUFFER.subarray(0, 16 * 1024)

/**
 * Where the next read goes.
 *
 * @param body - what is left of the memory of a body that is read into directly
 * @param bytesLeft - of that body
 * @param short - a request begins, and memory for bodies is short
 */
export function readBuffer(body: Buffer | undefined, bytesLeft: number, short: boolean): Buffer {
  if (body === undefined) return short ? SHORT_BUFFER : READ_BUFFER
  return body.length > bytesLeft ? body.subarray(0, bytesLeft) : body
}
