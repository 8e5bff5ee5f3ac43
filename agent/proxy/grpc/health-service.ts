import { create, toBinary } from '@bufbuild/protobuf'
import {
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthListResponseSchema,
  ServingStatus,
} from '#proto/index.ts'
import { decode } from './messages/index.ts'
import { frameOf, type Method, type ServerCall, STATUS } from './server/index.ts'

const WATCHERS_MAX = 256

/** `grpc.health.v1.Health`: the server as a whole (empty name) and each of its services serve until it stops. */
export class HealthService {
  readonly #services: ReadonlySet<string>
  /** Who watches, and which service. */
  readonly #watchers = new Map<ServerCall, string>()
  #serving = true

  constructor(services: readonly string[]) {
    this.#services = new Set(['', ...services])
  }

  get methods(): Readonly<Record<string, Method>> {
    return {
      check: {
        kind: 'message',
        handle: (call, message) => this.#check(call, serviceOf(message)),
      },
      list: { kind: 'message', handle: (call) => this.#list(call) },
      watch: {
        kind: 'message',
        handle: (call, message) => this.#watch(call, serviceOf(message)),
      },
    }
  }

  /** Tells everybody who watches, and ends their calls, so that they do not hold up the shutdown. */
  stop(): void {
    this.#serving = false
    for (const [call, service] of this.#watchers) {
      call.send(this.#answer(service))
      call.finish()
    }
  }

  #check(call: ServerCall, service: string): void {
    if (this.#services.has(service)) return call.answer(this.#answer(service))
    call.fail({ code: STATUS.notFound, message: `unknown service ${service}` })
  }

  #list(call: ServerCall): void {
    const status = this.#serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING
    const statuses = [...this.#services].map((service) => [service, { status }])
    const list = create(HealthListResponseSchema, { statuses: Object.fromEntries(statuses) })
    call.answer(frameOf(toBinary(HealthListResponseSchema, list)))
  }

  #watch(call: ServerCall, service: string): void {
    if (this.#watchers.size >= WATCHERS_MAX) {
      call.fail({ code: STATUS.resourceExhausted, message: 'too many watchers' })
      return
    }
    this.#watchers.set(call, service)
    call.onOver = () => this.#watchers.delete(call)
    call.send(this.#answer(service))
  }

  #answer(service: string): Buffer {
    const known = this.#serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING
    const status = this.#services.has(service) ? known : ServingStatus.SERVICE_UNKNOWN
    const answer = create(HealthCheckResponseSchema, { status })
    return frameOf(toBinary(HealthCheckResponseSchema, answer))
  }
}

function serviceOf(message: Buffer): string {
  return decode(HealthCheckRequestSchema, message).service
}
