/** All sockets read into this one buffer: what was read is consumed before the next read of any of them. */
export const READ_BUFFER = Buffer.allocUnsafeSlow(96 * 1024)
