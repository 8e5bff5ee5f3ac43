import { type DescService, fromBinary, type Message, toBinary } from '@bufbuild/protobuf'
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js'

/**
 * A generated service as grpc-js wants it. Everything comes from generated code, nothing is read from .proto files at run time,
 * so it works in a single-file bundle.
 *
 * @param typeName - Under another name than its own: for an earlier version of a service whose messages are the same.
 */
export function serviceDefinition(
  service: DescService,
  typeName = service.typeName,
): ServiceDefinition {
  const definition: Record<string, MethodDefinition<Message, Message>> = {}
  for (const method of service.methods) {
    definition[method.localName] = {
      path: `/${typeName}/${method.name}`,
      requestStream:
        method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream:
        method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      requestSerialize: (message) => viewOf(toBinary(method.input, message)),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: (message) => viewOf(toBinary(method.output, message)),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    }
  }
  return definition
}

/** The same bytes as a `Buffer`, not copied. */
export function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
