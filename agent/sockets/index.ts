/**
 * What several parts need around the sockets that they accept: reading into memory of their own, and memory that is used again.
 * Depends on node:net.
 * Used by invoke/ and proxy/http.
 */
export { Blocks, blocks } from './blocks.ts'
export { withReadBuffer } from './with-read-buffer.ts'
