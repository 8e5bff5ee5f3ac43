import type { DescService } from '@bufbuild/protobuf'
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
import { listenDualStack, listenFault } from '../listen-fault.ts'
import type { ProxyLog } from '../log.ts'
import { functionsService } from './functions-service.ts'
import { HealthService } from './health-service.ts'
import { ReflectionService } from './reflection-service.ts'
import { GrpcServer, type GrpcServerOptions, type Method } from './server/index.ts'
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
  /** Several processes listen on the port, and the kernel gives each of them its part of the connections; default: no. */
  readonly reusePort?: boolean
  /** Calls at once on one connection, default 1,000; more wait at the client. */
  readonly streamsPerConnectionMax?: number
  /** Bounds of connections and requests; the defaults are right for all but tests. */
  readonly server?: Partial<Omit<GrpcServerOptions, 'methods' | 'messageBytesMax' | 'log'>>
}

/** What a request message may hold beside its payload: names, metadata. */
const ENVELOPE_BYTES_MAX = 64 * 1024

/** gRPC (without TLS) in front of the functions: `shoal.v1.Functions`, tinyFaaS's service, health and reflection. */
export class GrpcProxy {
  readonly #server: GrpcServer
  readonly #health = new HealthService([Functions.typeName, TinyFaaS.typeName])
  readonly #reflection = new ReflectionService([
    file_shoal,
    file_tinyfaas,
    file_grpc_health_v1_health,
    file_grpc_reflection_v1_reflection,
    file_grpc_reflection_v1alpha_reflection,
  ])
  #port = 0

  private constructor(options: GrpcProxyOptions) {
    const { invoker, bodyBytesMax, log } = options
    const context = { invoker, bodyBytesMax, log }
    this.#server = new GrpcServer({
      ...options.server,
      methods: new Map([
        ...methodsOf(Functions, functionsService(context)),
        ...methodsOf(TinyFaaS, tinyfaasService(context)),
        ...methodsOf(Health, this.#health.methods),
        ...methodsOf(ServerReflection, this.#reflection.methods),
        ...methodsOf(ServerReflectionAlpha, this.#reflection.methods),
      ]),
      messageBytesMax: bodyBytesMax + ENVELOPE_BYTES_MAX,
      log,
      streamsMax: options.streamsPerConnectionMax ?? 1_000,
    })
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async listen(options: GrpcProxyOptions): Promise<GrpcProxy> {
    const proxy = new GrpcProxy(options)
    const { host, port } = options
    try {
      proxy.#port = await listenDualStack(host, (address) =>
        proxy.#server.listen(address, port, options.reusePort ?? false),
      )
    } catch (error) {
      throw listenFault(error, { what: 'gRPC', host, port, setting: 'SHOAL_GRPC_PORT' })
    }
    return proxy
  }

  get port(): number {
    return this.#port
  }

  /** Calls that have begun and not ended. */
  get inFlight(): number {
    return this.#server.calls.size
  }

  /** Refuses new calls with `SHUTTING_DOWN`, lets those in flight finish for up to `drainMs`, then cancels them. Idempotent. */
  close(drainMs = 0): Promise<void> {
    this.#health.stop()
    this.#reflection.stop()
    return this.#server.close(drainMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** By path, as the server wants them. @throws RangeError for a method that nobody implements */
function methodsOf(
  service: DescService,
  implementation: Readonly<Record<string, Method>>,
): [string, Method][] {
  return service.methods.map(({ name, localName }) => {
    const method = implementation[localName]
    if (method === undefined) throw new RangeError(`${service.typeName}/${name} is not there`)
    return [`/${service.typeName}/${name}`, method]
  })
}
