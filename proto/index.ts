/**
 * The gRPC services this system speaks, as code generated from the .proto files beside it (`npm run gen`, checked to be fresh).
 * Depends on @bufbuild/protobuf.
 * Used by agent/proxy/grpc.
 */
export {
  file_grpc_health_v1_health,
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
  HealthCheckResponseSchema,
  HealthListResponseSchema,
} from './gen/grpc/health/v1/health_pb.ts'
export {
  file_grpc_reflection_v1_reflection,
  ServerReflection,
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from './gen/grpc/reflection/v1/reflection_pb.ts'
export {
  file_grpc_reflection_v1alpha_reflection,
  ServerReflection as ServerReflectionAlpha,
} from './gen/grpc/reflection/v1alpha/reflection_pb.ts'
export {
  file_shoal,
  Functions,
  InvokeChunkSchema,
  InvokeRequestSchema,
  InvokeResponseSchema,
} from './gen/shoal_pb.ts'
export { DataSchema, file_tinyfaas, ResponseSchema, TinyFaaS } from './gen/tinyfaas_pb.ts'
