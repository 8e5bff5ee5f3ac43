/**
 * gRPC in front of the functions: a message becomes an Invocation, a Result the response or a stream of chunks.
 * Depends on invoke/ (its types), proto/, node:net and @bufbuild/protobuf.
 * Used by main.ts.
 */
export { GrpcProxy, type GrpcProxyOptions } from './grpc-proxy.ts'
