/**
 * What several parts do with the sockets that they accept.
 * Depends on node:net.
 * Used by invoke/link and proxy/http.
 */
export { withReadBuffer } from './with-read-buffer.ts'
