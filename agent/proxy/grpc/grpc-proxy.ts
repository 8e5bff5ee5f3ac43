import { setTimeout as sleep } from 'node:timers/promises'
import { Server, ServerCredentials, setLogger } from '@grpc/grpc-js'
import type { Invoker } from '#agent/invoke/index.ts'
import {
  file_grpc_health_v1_health,
  file_grpc_reflection_v1_reflection,
  file_grpc_reflection_v1alpha_reflection,
  file_shoal,
  file_tinyfaas,
  Functions,
  Health,
  ServerReflection,
  ServerReflectionAlpha,
  TinyFaaS,
} from '#proto/index.ts'
import { Fault } from '#shared/fault.ts'
import { listenDualStack, listenFault } from '../listen-fault.ts'
import type { ProxyLog } from '../log.ts'
import type { CallContext } from './call.ts'
import { serviceDefinition } from './definition.ts'
import { functionsService } from './functions-service.ts'
import { HealthService } from './health-service.ts'
import { ReflectionService } from './reflection-service.ts'
import { tinyfaasService } from './tinyfaas-service.ts'

export interface GrpcProxyOptions {
  /** `::` is dual-stack. */
  readonly host: string
  /** 0: any free one, see `port`. */
  readonly port: number
  readonly invoker: Invoker
  /** Bound of a payload, either way. */
  readonly bodyBytesMax: number
  readonly log: ProxyLog
  /** Calls at once on one connection, default 1,000; more wait at the client. */
  readonly streamsPerConnectionMax?: number
}

/** What a request message may hold beside its payload: names, metadata. */
const ENVELOPE_BYTES_MAX = 64 * 1024

/** gRPC (without TLS) in front of the functions: `shoal.v1.Functions`, tinyFaaS's service, health and reflection. */
export class GrpcProxy {
  readonly #server: Server
  readonly #context: CallContext
  readonly #health = new HealthService([Functions.typeName, TinyFaaS.typeName])
  readonly #reflection = new ReflectionService([
    file_shoal,
    file_tinyfaas,
    file_grpc_health_v1_health,
    file_grpc_reflection_v1_reflection,
    file_grpc_reflection_v1alpha_reflection,
  ])
  #port = 0
  #closing: Promise<void> | undefined

  private constructor(options: GrpcProxyOptions) {
    const { invoker, bodyBytesMax, log } = options
    // The library would write to stderr by itself; what matters of it also comes back as an error.
    setLogger({ error: (text: unknown) => log.warn({ text: String(text) }, 'gRPC library') })
    this.#server = new Server({
      'grpc.max_receive_message_length': bodyBytesMax + ENVELOPE_BYTES_MAX,
      'grpc.max_send_message_length': -1,
      'grpc.max_concurrent_streams': options.streamsPerConnectionMax ?? 1_000,
      // A peer that vanished without a word is found out, and its calls are cancelled.
      'grpc.keepalive_time_ms': 60_000,
      'grpc.keepalive_timeout_ms': 20_000,
    })
    const closing = (): boolean => this.#closing !== undefined
    this.#context = { invoker, bodyBytesMax, log, closing, calls: new Set() }
    this.#server.addService(serviceDefinition(Functions), functionsService(this.#context))
    this.#server.addService(serviceDefinition(TinyFaaS), tinyfaasService(this.#context))
    this.#server.addService(serviceDefinition(Health), this.#health.implementation)
    const { implementation } = this.#reflection
    this.#server.addService(serviceDefinition(ServerReflection), implementation)
    const { typeName } = ServerReflectionAlpha
    this.#server.addService(serviceDefinition(ServerReflection, typeName), implementation)
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async listen(options: GrpcProxyOptions): Promise<GrpcProxy> {
    const proxy = new GrpcProxy(options)
    const { host, port } = options
    try {
      await listenDualStack(host, (address) => proxy.#bind(address, port))
    } catch (error) {
      proxy.#server.forceShutdown()
      throw listenFault(error, { what: 'gRPC', host, port, setting: 'SHOAL_GRPC_PORT' })
    }
    return proxy
  }

  get port(): number {
    return this.#port
  }

  /** Calls of functions that have begun and not ended. */
  get inFlight(): number {
    return this.#context.calls.size
  }

  /** Refuses new calls with `SHUTTING_DOWN`, lets those in flight finish for up to `drainMs`, then cancels them. Idempotent. */
  close(drainMs = 0): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #bind(host: string, port: number): Promise<void> {
    const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
    this.#port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound)
        else reject(error)
      })
    })
  }

  async #close(drainMs: number): Promise<void> {
    this.#health.stop()
    this.#reflection.stop()
    const stopped = new Promise<void>((resolve) => {
      this.#server.tryShutdown(() => resolve())
    })
    await Promise.race([stopped, sleep(drainMs, undefined, { ref: false })])
    const fault = new Fault('SHUTTING_DOWN', 'this node is stopping')
    for (const abort of this.#context.calls) abort.abort(fault)
    // What was just answered or cancelled is still on its way out.
    await Promise.race([stopped, sleep(FLUSH_MS, undefined, { ref: false })])
    this.#server.forceShutdown()
  }
}

/** For answers that are written but not yet sent when the proxy closes. */
const FLUSH_MS = 250
