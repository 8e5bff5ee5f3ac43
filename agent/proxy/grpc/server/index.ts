/**
 * A gRPC server: HTTP/2 connections, calls with their deadlines, messages and statuses. Knows no services and no functions.
 * Depends on shared, proxy/ (log, faults), node:net and node:zlib.
 * Used by proxy/grpc.
 */
export { frameFor, frameOf } from './frame.ts'
export { GrpcServer, type GrpcServerOptions } from './grpc-server.ts'
export { PREFIX_BYTES } from './message-reader.ts'
export type { MessageConsumer, Method } from './method.ts'
export type { ServerCall } from './server-call.ts'
export { STATUS, type Status, StatusError, statusOf } from './status.ts'
