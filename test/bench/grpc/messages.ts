import { create, toBinary } from '@bufbuild/protobuf'
import { DataSchema } from '#proto/index.ts'
import { grpcFrame, INVOKE, invokeMessage } from '#test/grpc-http2.ts'

/** Paths of the two services' unary methods. */
export const PATHS = {
  shoal: INVOKE,
  tinyfaas: '/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request',
} as const

export type Service = keyof typeof PATHS

/** A request of a function with so many bytes, prefix and all. */
export function requestFrame(service: Service, bytes: number, fn = 'echo'): Buffer {
  const text = 'x'.repeat(bytes)
  if (service === 'shoal') return grpcFrame(invokeMessage(fn, text))
  const data = create(DataSchema, { functionIdentifier: fn, data: text })
  return grpcFrame(toBinary(DataSchema, data))
}
