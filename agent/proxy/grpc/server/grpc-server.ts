import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BodyBudget, bodyBudget } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { connectionLimit } from '../../connection-limit.ts'
import type { ProxyLog } from '../../log.ts'
import type { HeaderList } from '#agent/invoke/index.ts'
import { type AcceptHost, acceptCall } from './accept-call.ts'
import { CallSet } from './call-set.ts'
import type { CallStream, CallStreamListener } from './call-stream.ts'
import { Connection, type ConnectionHost, type ConnectionLimits } from './h2/index.ts'
import { Inflater } from './inflate.ts'
import type { Method } from './method.ts'
import type { ServerCall } from './server-call.ts'

export interface GrpcServerOptions extends Partial<ConnectionLimits> {
  /** By path: `/service/method`. */
  readonly methods: ReadonlyMap<string, Method>
  readonly messageBytesMax: number
  readonly log: ProxyLog
  /** For messages, both ways; default: that of the process. */
  readonly budget?: BodyBudget
  /** Default 10,000, or a fifth of this process' descriptors; further ones are closed at once. */
  readonly connectionsMax?: number
  /** So many processes share the 10,000, default 1; each has descriptors of its own. */
  readonly processes?: number
  /** A request must be complete within this time, default 60,000. */
  readonly receiveMs?: number
}

const DEFAULTS: ConnectionLimits = {
  streamsMax: 1_000,
  headerBytesMax: 16 * 1024,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
  stalledMs: 60_000,
}
/** For answers that are written but not yet sent when the server closes. */
const FLUSH_MS = 250

/** gRPC over HTTP/2 without TLS. */
export class GrpcServer implements AcceptHost, ConnectionHost {
  readonly methods: ReadonlyMap<string, Method>
  readonly messageBytesMax: number
  readonly log: ProxyLog
  readonly budget: BodyBudget
  readonly calls = new CallSet<ServerCall>()
  readonly inflater = new Inflater()
  readonly #server: Server
  readonly #limits: ConnectionLimits
  readonly #receiveMs: number
  readonly #connections = new Set<Connection>()
  #looking: NodeJS.Timeout | undefined
  #closing: Promise<void> | undefined

  constructor(options: GrpcServerOptions) {
    this.methods = options.methods
    this.messageBytesMax = options.messageBytesMax
    this.log = options.log
    this.budget = options.budget ?? bodyBudget
    this.#limits = {
      streamsMax: options.streamsMax ?? DEFAULTS.streamsMax,
      headerBytesMax: options.headerBytesMax ?? DEFAULTS.headerBytesMax,
      keepaliveMs: options.keepaliveMs ?? DEFAULTS.keepaliveMs,
      keepaliveTimeoutMs: options.keepaliveTimeoutMs ?? DEFAULTS.keepaliveTimeoutMs,
      stalledMs: options.stalledMs ?? DEFAULTS.stalledMs,
    }
    this.#receiveMs = options.receiveMs ?? 60_000
    this.#server = createServer((socket) => this.#accept(socket))
    const most = Math.ceil(10_000 / (options.processes ?? 1))
    this.#server.maxConnections = options.connectionsMax ?? connectionLimit(most, 0.2)
  }

  get closing(): boolean {
    return this.#closing !== undefined
  }

  /** @returns the port @throws Error of the system */
  async listen(host: string, port: number, reusePort: boolean): Promise<number> {
    this.#server.listen({ host, port, reusePort })
    await once(this.#server, 'listening')
    this.#server.on('error', (error) => {
      this.log.warn({ err: error }, 'a connection could not be taken')
    })
    const { keepaliveTimeoutMs, stalledMs } = this.#limits
    const everyMs = Math.min(keepaliveTimeoutMs, stalledMs, this.#receiveMs) / 4
    this.#looking = setInterval(() => this.#look(), everyMs).unref()
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  accept(stream: CallStream, header: HeaderList, whole: boolean): CallStreamListener | undefined {
    return acceptCall(this, stream, header, whole)
  }

  /** Refuses new calls, lets those in flight finish for up to `drainMs`, then cancels them. Idempotent. */
  close(drainMs: number): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async #close(drainMs: number): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
    })
    for (const connection of this.#connections) connection.goAway()
    await Promise.race([stopped, sleep(drainMs, undefined, { ref: false })])
    const fault = new Fault('SHUTTING_DOWN', 'this node is stopping')
    for (const call of this.calls.values()) call.cancel(fault)
    await Promise.race([stopped, sleep(FLUSH_MS, undefined, { ref: false })])
    for (const connection of this.#connections) connection.destroy()
    await stopped
    clearInterval(this.#looking)
  }

  #accept(socket: Socket): void {
    const connection = new Connection(socket, this, this.#limits, () => {
      this.#connections.delete(connection)
    })
    this.#connections.add(connection)
  }

  #look(): void {
    const nowMs = performance.now()
    for (const connection of this.#connections) connection.look(nowMs)
    for (const call of this.calls.values()) {
      const since = call.receivingSinceMs
      if (since === undefined || nowMs - since < this.#receiveMs) continue
      const message = `the request did not come within ${this.#receiveMs} ms`
      call.cancel(new Fault('DEADLINE_EXCEEDED', message, { timeoutMs: this.#receiveMs }))
    }
  }
}
