/**
 * HTTP/2 (RFC 9113, HPACK: RFC 7541) for a gRPC server: one connection with its streams, windows and limits.
 * Depends on proxy/grpc/server (what a stream tells and takes) and node:net.
 * Used by proxy/grpc/server.
 */
export { Connection } from './connection.ts'
export type { ConnectionHost, ConnectionLimits } from './connection-host.ts'
