import assert from 'node:assert/strict'
import { join } from 'node:path'
import {
  type Client,
  credentials,
  loadPackageDefinition,
  Metadata,
  type ServiceClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { GrpcProxy, type GrpcProxyOptions } from '#agent/proxy/grpc/index.ts'
import { CapturedLog } from './captured-log.ts'
import { TestInvoker } from './invoker.ts'

const PROTO = join(import.meta.dirname, '../../proto')

export interface CallOptions {
  readonly metadata?: Readonly<Record<string, string | Buffer>>
  readonly deadlineMs?: number
}

/** What a call ended with. */
export interface Ended {
  readonly code: number
  readonly details: string
  readonly trailer: Metadata
}

/** An answer of any of the services; a message has those of these fields that its .proto names. */
export interface GrpcAnswer {
  readonly payload: Buffer
  readonly status: number | string
  readonly contentType: string
  readonly metadata: Readonly<Record<string, string>>
  readonly response: string
  readonly statuses: object
  readonly listServicesResponse: { readonly service: readonly { readonly name: string }[] }
  readonly fileDescriptorResponse: { readonly fileDescriptorProto: readonly Buffer[] }
  readonly errorResponse: { readonly errorCode: number }
}

/** One client of the services, made from the .proto files by a generator that is not ours. */
export interface GrpcClient extends Disposable {
  unary(method: string, request: object, options?: CallOptions): Promise<GrpcAnswer>
  /** How a call ended that is expected to fail. */
  failure(method: string, request: object, options?: CallOptions): Promise<Ended>
  stream(method: string, request?: object, options?: CallOptions): GrpcStream
}

export type GrpcStream = AsyncIterable<GrpcAnswer> & {
  cancel(): void
  write(message: object): boolean
  end(): void
  pause(): unknown
  resume(): unknown
}

export interface GrpcProxyScope extends AsyncDisposable {
  readonly invoker: TestInvoker
  readonly log: CapturedLog
  readonly proxy: GrpcProxy
  /** @param service - e.g. `shoal.v1.Functions` */
  client(proto: string, service: string, host?: string): GrpcClient
}

/** A gRPC proxy on a free port, before functions of this process. Disposing fails when a call is left over. */
export async function grpcProxyScope(
  options: Partial<GrpcProxyOptions> = {},
): Promise<GrpcProxyScope> {
  const invoker = new TestInvoker()
  const log = new CapturedLog()
  const clients: GrpcClient[] = []
  const proxy = await GrpcProxy.listen({
    host: '::',
    port: 0,
    invoker,
    bodyBytesMax: 1024 * 1024,
    log,
    ...options,
  })
  return {
    invoker,
    log,
    proxy,
    client(proto, service, host = '127.0.0.1') {
      const client = grpcClient(`${host}:${proxy.port}`, proto, service)
      clients.push(client)
      return client
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client[Symbol.dispose]()
      await proxy.close()
      assert.equal(proxy.inFlight, 0, 'calls are left over')
    },
  }
}

type Call = (...args: unknown[]) => GrpcStream

/** A client made by @grpc/proto-loader from `proto/<file>`. */
export function grpcClient(address: string, proto: string, service: string): GrpcClient {
  const client = genericClient(address, proto, service)
  const method = (name: string): Call => {
    const call: unknown = Reflect.get(client, name)
    if (typeof call !== 'function') throw new TypeError(`${service} has no method ${name}`)
    return call.bind(client)
  }
  const unary = (name: string, request: object, options: CallOptions = {}) => {
    const { promise, resolve } = Promise.withResolvers<[ServiceError | null, GrpcAnswer]>()
    const ended = (error: ServiceError | null, answer: GrpcAnswer): void => resolve([error, answer])
    method(name)(request, metadataOf(options), callOptionsOf(options), ended)
    return promise
  }
  return {
    async unary(name, request, options) {
      const [error, answer] = await unary(name, request, options)
      if (error !== null) throw error
      return answer
    },
    async failure(name, request, options) {
      const [error] = await unary(name, request, options)
      if (error === null) throw new Error(`${name} did not fail`)
      return { code: error.code, details: error.details, trailer: error.metadata }
    },
    stream(name, request, options = {}) {
      const args = [metadataOf(options), callOptionsOf(options)]
      return method(name)(...(request === undefined ? args : [request, ...args]))
    },
    [Symbol.dispose]() {
      client.close()
    },
  }
}

function genericClient(address: string, proto: string, service: string): Client {
  const definition = loadSync(proto, { includeDirs: [PROTO], enums: String, defaults: true })
  const names = service.split('.')
  const last = names.pop() ?? ''
  let parent: object = loadPackageDefinition(definition)
  for (const name of names) parent = Reflect.get(parent, name)
  const Service: ServiceClientConstructor = Reflect.get(parent, last)
  const options = { 'grpc.max_receive_message_length': -1 }
  return new Service(address, credentials.createInsecure(), options)
}

function metadataOf({ metadata = {} }: CallOptions): Metadata {
  const all = new Metadata()
  for (const [name, value] of Object.entries(metadata)) all.set(name, value)
  return all
}

function callOptionsOf({ deadlineMs }: CallOptions): { deadline?: number } {
  return deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs }
}
