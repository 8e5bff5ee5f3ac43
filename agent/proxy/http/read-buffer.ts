import { room } from '#agent/sockets/index.ts'

/** All sockets read into this one buffer: what was read is consumed before the next read of any of them. */
export const READ_BUFFER = Buffer.allocUnsafeSlow(Math.min(96 * 1024, room.windowBytes))

/** What comes with the head of a request that then has to wait is kept: not much of it where many wait. */
export const SHORT_BUFFER = READ_BUFFER.subarray(0, 16 * 1024)
