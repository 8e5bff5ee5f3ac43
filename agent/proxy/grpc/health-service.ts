import { create } from '@bufbuild/protobuf'
import {
  type sendUnaryData,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { HealthCheckResponseSchema, HealthListResponseSchema, ServingStatus } from '#proto/index.ts'

interface Question {
  readonly service: string
}
type Watcher = ServerWritableStream<Question, unknown>

const WATCHERS_MAX = 256

/** `grpc.health.v1.Health`: the server as a whole (empty name) and each of its services serve until it stops. */
export class HealthService {
  readonly #services: ReadonlySet<string>
  readonly #watchers = new Set<Watcher>()
  #serving = true

  constructor(services: readonly string[]) {
    this.#services = new Set(['', ...services])
  }

  get implementation(): UntypedServiceImplementation {
    return {
      check: (call: ServerUnaryCall<Question, unknown>, done: sendUnaryData<unknown>) => {
        const { service } = call.request
        if (this.#services.has(service)) done(null, this.#answer(service))
        else done({ code: status.NOT_FOUND, details: `unknown service ${service}` })
      },
      list: (_call: unknown, done: sendUnaryData<unknown>) => {
        const statuses = [...this.#services].map((service) => [service, this.#answer(service)])
        done(null, create(HealthListResponseSchema, { statuses: Object.fromEntries(statuses) }))
      },
      watch: (call: Watcher) => this.#watch(call),
    }
  }

  /** Tells everybody who watches, and ends their calls, so that they do not hold up the shutdown. */
  stop(): void {
    this.#serving = false
    for (const call of this.#watchers) {
      call.write(this.#answer(call.request.service))
      call.end()
    }
    this.#watchers.clear()
  }

  #watch(call: Watcher): void {
    if (this.#watchers.size >= WATCHERS_MAX) {
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: 'too many watchers' })
      return
    }
    this.#watchers.add(call)
    call.on('cancelled', () => this.#watchers.delete(call))
    call.write(this.#answer(call.request.service))
  }

  #answer(service: string) {
    const known = this.#serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING
    const serving = this.#services.has(service) ? known : ServingStatus.SERVICE_UNKNOWN
    return create(HealthCheckResponseSchema, { status: serving })
  }
}
