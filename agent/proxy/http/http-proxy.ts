import { createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Invoker } from '#agent/invoke/index.ts'
import { type BodyBudget, bodyBudget } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { connectionLimit } from '../connection-limit.ts'
import { listenDualStack, listenFault } from '../listen-fault.ts'
import type { ProxyLog } from '../log.ts'
import { type CallConnection, type CallContext, HttpCall } from './call.ts'
import { Connection } from './connection.ts'
import { CutOffLog } from './cut-off-log.ts'
import type { ConnectionHost, ConnectionTimes } from './connection-host.ts'
import type { RequestFields } from './fields.ts'
import type { Framing } from './framing.ts'
import { Llhttp } from './llhttp.ts'
import { READ_BUFFER, startBuffer } from './read-buffer.ts'
import { ParserPool, type RequestHead } from './request-parser.ts'
import { Tarpit } from './tarpit.ts'
import { TurnAway } from './turn-away.ts'

/** For answers that are written but not yet sent when the proxy closes. */
const FLUSH_MS = 250

export interface HttpProxyOptions {
  /** `::` is dual-stack. */
  readonly host: string
  /** 0: any free one, see `port`. */
  readonly port: number
  readonly invoker: Invoker
  /** Bound of a request's body. */
  readonly bodyBytesMax: number
  readonly log: ProxyLog
  /** For bodies, both ways; default: that of the process. */
  readonly budget?: BodyBudget
  /** Several processes listen on the port, and the kernel gives each of them its part of the connections; default: no. */
  readonly reusePort?: boolean
  /** Default 16,384, or three quarters of this process' descriptors; connections above it are answered 503. */
  readonly connectionsMax?: number
  /** So many processes share the 16,384, default 1; each has descriptors of its own. */
  readonly processes?: number
  /** Request line and header together, default 16 KiB; 431 above. */
  readonly headerBytesMax?: number
  /** Default 128; 400 above. */
  readonly headerFieldsMax?: number
  /** For the header to arrive, default 10,000; 408 above. */
  readonly headerTimeoutMs?: number
  /** For the whole request to arrive, and for a peer that takes nothing of its answer, default 300,000; 408 above. */
  readonly requestTimeoutMs?: number
  /** An idle connection is kept this long, default 75,000. */
  readonly idleTimeoutMs?: number
  /** A peer that has been silent for so long is asked whether it is there, default 30,000; without an answer it has gone 10 s later. */
  readonly probeAfterMs?: number
}

/** HTTP/1.1 in front of the functions: `/<function>[/rest][?query]`, any method, any body. */
export class HttpProxy implements ConnectionHost {
  readonly parsers: ParserPool
  readonly times: ConnectionTimes
  readonly tarpit = new Tarpit()
  readonly bodyBytesMax: number
  readonly budget: BodyBudget
  startBuffer: Buffer = READ_BUFFER
  nowMs = performance.now()
  readonly #server: Server
  readonly #context: CallContext
  readonly #connectionsMax: number
  readonly #connections = new Set<Connection>()
  readonly #turnAway = new TurnAway()
  readonly #sweepMs: number
  #sweeper: NodeJS.Timeout | undefined
  #closing: Promise<void> | undefined
  #drained: (() => void) | undefined
  #inFlight = 0

  private constructor(options: HttpProxyOptions) {
    const { invoker, bodyBytesMax, log, budget = bodyBudget } = options
    this.parsers = new ParserPool(new Llhttp(), {
      headerBytesMax: options.headerBytesMax ?? 16 * 1024,
      headerFieldsMax: options.headerFieldsMax ?? 128,
    })
    this.times = {
      headerTimeoutMs: options.headerTimeoutMs ?? 10_000,
      requestTimeoutMs: options.requestTimeoutMs ?? 300_000,
      idleTimeoutMs: options.idleTimeoutMs ?? 75_000,
    }
    this.bodyBytesMax = bodyBytesMax
    this.budget = budget
    this.#connectionsMax =
      options.connectionsMax ?? connectionLimit(Math.ceil(16_384 / (options.processes ?? 1)), 0.75)
    this.#context = { invoker, bodyBytesMax, log, budget, cutOffs: new CutOffLog(log) }
    this.#sweepMs = Math.min(1_000, Math.ceil(Math.min(...Object.values(this.times)) / 4))
    this.#server = createServer({
      noDelay: true,
      allowHalfOpen: true,
      // Else a caller whose network went away in mid-call keeps its function at work until the deadline.
      keepAlive: true,
      keepAliveInitialDelay: options.probeAfterMs ?? 30_000,
    })
    this.#server.on('connection', (socket) => this.#connect(socket))
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async listen(options: HttpProxyOptions): Promise<HttpProxy> {
    const proxy = new HttpProxy(options)
    const { host, port } = options
    try {
      await listenDualStack(host, (address) =>
        proxy.#listen({ host: address, port, reusePort: options.reusePort ?? false }),
      )
    } catch (error) {
      throw listenFault(error, { what: 'HTTP', host, port, setting: 'SHOAL_HTTP_PORT' })
    }
    return proxy
  }

  get port(): number {
    const address = this.#server.address()
    return address !== null && typeof address === 'object' ? address.port : 0
  }

  /** Calls that have begun and not ended. */
  get inFlight(): number {
    return this.#inFlight
  }

  get closing(): boolean {
    return this.#closing !== undefined
  }

  /**
   * Refuses new calls with `SHUTTING_DOWN`, lets those in flight finish for up to `drainMs`, then cancels them and closes
   * every connection; what is being sent belongs to its call. Idempotent.
   */
  close(drainMs = 0): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  opened(
    connection: CallConnection,
    head: RequestHead,
    fields: RequestFields,
    framing: Framing,
  ): HttpCall {
    this.#inFlight += 1
    return new HttpCall(this.#context, connection, head, fields, framing)
  }

  serve(call: HttpCall): void {
    if (this.closing) call.cancel(stopping())
    else call.start()
  }

  ended(): void {
    this.#inFlight -= 1
    if (this.#inFlight === 0) this.#drained?.()
  }

  #listen(where: ListenOptions): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#server.once('error', reject)
    this.#server.listen(where, () => {
      this.#server.off('error', reject)
      this.#server.on('error', (error) => {
        this.#context.log.warn({ err: error }, 'a connection could not be taken')
      })
      resolve()
    })
    return promise
  }

  #connect(socket: Socket): void {
    if (this.#connections.size >= this.#connectionsMax) return this.#turnAway.take(socket)
    if (this.closing) {
      socket.destroy()
      return
    }
    if (this.#sweeper === undefined) {
      this.nowMs = performance.now()
      this.#sweeper = setInterval(() => this.#sweep(), this.#sweepMs)
    }
    const connection = new Connection(socket, this, () => this.#disconnected(connection))
    this.#connections.add(connection)
    this.#counted()
  }

  #disconnected(connection: Connection): void {
    this.#connections.delete(connection)
    this.#counted()
    if (this.#connections.size > 0) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  #counted(): void {
    this.startBuffer = startBuffer(this.#connections.size, this.budget.bytesMax)
  }

  #sweep(): void {
    // What is due by a time taken before this one may be early by one sweep, so all are looked at one sweep late.
    const before = this.nowMs
    this.nowMs = performance.now()
    for (const connection of this.#connections) connection.sweep(before)
  }

  async #close(drainMs: number): Promise<void> {
    const drainedAtMs = performance.now() + drainMs
    const stopped = new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
    })
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve
      if (this.#inFlight === 0) resolve()
    })
    for (const connection of this.#connections) connection.shutDown()
    await Promise.race([drained, sleep(drainMs, undefined, { ref: false })])
    for (const connection of this.#connections) connection.cancel(stopping())
    // Answers that were handed over are still on their way out: connections get a moment to end by themselves, and those whose peer
    // is slow what is left of the time.
    const flushedAtMs = performance.now() + FLUSH_MS
    const goesOn = (): boolean => {
      const nowMs = performance.now()
      if (nowMs < flushedAtMs) return this.#connections.size > 0
      return nowMs < drainedAtMs && [...this.#connections].some(({ sending }) => sending)
    }
    while (goesOn()) await sleep(5)
    for (const connection of this.#connections) connection.destroy()
    await stopped
  }
}

function stopping(): Fault {
  return new Fault('SHUTTING_DOWN', 'this node is stopping')
}
