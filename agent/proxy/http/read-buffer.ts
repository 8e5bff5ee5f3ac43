import { room } from '#agent/sockets/index.ts'

/** All sockets read into this one buffer: what was read is consumed before the next read of any of them. */
export const READ_BUFFER = Buffer.allocUnsafeSlow(Math.min(96 * 1024, room.windowBytes))

/** Largest first; the last has room for a head and a small body. */
const PARTS = [64, 32, 16, 8, 4, 2].map((kib) => READ_BUFFER.subarray(0, kib * 1024))
const SMALLEST = PARTS.at(-1) ?? READ_BUFFER
/** Of the memory for bodies, what may be read ahead of it. */
const AHEAD = 1 / 16

/**
 * Where a read goes that may begin a request. What comes with its head is kept when its body has to wait its turn, and no budget
 * covers that: the more connections, the less may come with it. A body that need not wait is read in one go where there is room.
 *
 * @param bodyBytes - that all bodies may have
 */
export function startBuffer(connections: number, bodyBytes: number): Buffer {
  const share = (bodyBytes * AHEAD) / connections
  if (share >= READ_BUFFER.length) return READ_BUFFER
  return PARTS.find(({ length }) => length <= share) ?? SMALLEST
}

/**
 * Where a read goes within a body.
 *
 * @param body - what is left of its memory, when it is read into directly
 * @param bytesLeft - of the body
 */
export function bodyBuffer(body: Buffer | undefined, bytesLeft: number): Buffer {
  if (body === undefined) return READ_BUFFER
  return body.length > bytesLeft ? body.subarray(0, bytesLeft) : body
}
