import { setTimeout as sleep } from 'node:timers/promises'
import {
  ClosedConnectionError,
  connect,
  DrainingConnectionError,
  headers as natsHeaders,
  jwtAuthenticator,
  NoRespondersError,
  RequestError,
  TimeoutError,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
  type Subscription,
} from '@nats-io/transport-node'
import type { Logger } from 'pino'
import { Fault } from '#shared/fault.ts'
import type { Bus, BusMessage, BusRequest, RequestOptions } from './bus.ts'

const CONNECT_TIMEOUT_MS = 5_000
const RETRY_MS_MIN = 200
const RETRY_MS_MAX = 5_000
const PING_INTERVAL_MS = 15_000

export interface NatsBusOptions {
  readonly servers: readonly string[]
  /** Absent: a server without authentication. */
  readonly credentials?: { readonly jwt: string; readonly seed: string }
  readonly name: string
  readonly log: Logger
  /** The connection is there (again). */
  readonly onUp: () => void
  readonly onDown: () => void
}

interface Registered {
  readonly subject: string
  readonly queue: string | undefined
  readonly handler: (message: BusRequest) => void
  live: Subscription | undefined
}

/** NATS that comes and goes: connects in the background for ever, and subscribes anew each time it has to. */
export class NatsBus implements Bus, AsyncDisposable {
  readonly #options: NatsBusOptions
  readonly #registered = new Set<Registered>()
  readonly #stop = new AbortController()
  #connection: NatsConnection | undefined
  #up = false
  #lastProblem = ''
  #running: Promise<void> = Promise.resolve()

  static start(options: NatsBusOptions): NatsBus {
    const bus = new NatsBus(options)
    bus.#running = bus.#run()
    return bus
  }

  private constructor(options: NatsBusOptions) {
    this.#options = options
  }

  get connected(): boolean {
    return this.#up
  }

  async request(
    subject: string,
    data: Uint8Array,
    { timeoutMs, headers }: RequestOptions,
    signal?: AbortSignal,
  ): Promise<BusMessage> {
    const connection = this.#connection
    if (connection === undefined || !this.#up) {
      throw new Fault('NODE_OFFLINE', 'no connection to NATS: is nats-server running?', { subject })
    }
    if (signal?.aborted) throw new Fault('CALLER_GONE', 'the caller has gone')
    const asked = connection.request(subject, data, {
      timeout: timeoutMs,
      ...(headers === undefined ? {} : { headers: toHeaders(headers) }),
    })
    try {
      return fromMessage(await (signal === undefined ? asked : orAborted(asked, signal)))
    } catch (error) {
      throw requestFault(error, subject, timeoutMs)
    }
  }

  subscribe(
    subject: string,
    handler: (message: BusRequest) => void,
    { queue }: { readonly queue?: string } = {},
  ): () => void {
    const registered: Registered = { subject, queue, handler, live: undefined }
    this.#registered.add(registered)
    if (this.#connection !== undefined) this.#open(this.#connection, registered)
    return () => {
      this.#registered.delete(registered)
      registered.live?.unsubscribe()
    }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    const connection = this.#connection
    // What has been published leaves first; a server that hangs gets a second, no more.
    if (connection !== undefined && !connection.isClosed()) {
      await Promise.race([connection.drain().catch(() => undefined), sleep(1_000)])
      await connection.close()
    }
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #run(): Promise<void> {
    let retryMs = RETRY_MS_MIN
    while (!this.#stop.signal.aborted) {
      try {
        const connection = await this.#connect()
        if (connection === undefined) return
        retryMs = RETRY_MS_MIN
        await this.#serve(connection)
      } catch (error) {
        this.#problem(error)
      }
      // Half of it random, so that several controllers do not come all at once.
      const pauseMs = retryMs * (0.5 + Math.random() / 2)
      await sleep(pauseMs, undefined, { signal: this.#stop.signal }).catch(() => undefined)
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX)
    }
  }

  /** A connection, or nothing when this bus was closed meanwhile. */
  async #connect(): Promise<NatsConnection | undefined> {
    const { servers, credentials, name } = this.#options
    const pending = connect({
      servers: [...servers],
      name,
      timeout: CONNECT_TIMEOUT_MS,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RETRY_MS_MIN,
      reconnectJitter: RETRY_MS_MIN,
      pingInterval: PING_INTERVAL_MS,
      maxPingOut: 2,
      ...(credentials === undefined
        ? {}
        : {
            authenticator: jwtAuthenticator(
              credentials.jwt,
              new TextEncoder().encode(credentials.seed),
            ),
          }),
    })
    const { signal } = this.#stop
    const stopped = Promise.withResolvers<undefined>()
    const onAbort = () => stopped.resolve(undefined)
    signal.addEventListener('abort', onAbort)
    try {
      const first = await Promise.race([pending, stopped.promise])
      if (first === undefined) pending.then((late) => late.close()).catch(() => undefined)
      return first
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  async #serve(connection: NatsConnection): Promise<void> {
    this.#connection = connection
    this.#lastProblem = ''
    for (const registered of this.#registered) this.#open(connection, registered)
    this.#setUp(true)
    const watching = this.#watch(connection)
    const ended = await connection.closed()
    await watching
    this.#connection = undefined
    for (const registered of this.#registered) registered.live = undefined
    this.#setUp(false)
    if (ended instanceof Error) throw ended
  }

  async #watch(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'disconnect') this.#setUp(false)
      if (status.type === 'reconnect') this.#setUp(true)
      if (status.type === 'error') this.#problem(status.error)
    }
  }

  #setUp(up: boolean): void {
    if (this.#up === up) return
    this.#up = up
    const { servers, log, onUp, onDown } = this.#options
    if (up) {
      log.info({ servers }, 'connected to NATS')
      onUp()
    } else {
      if (!this.#stop.signal.aborted) log.warn({ servers }, 'connection to NATS lost')
      onDown()
    }
  }

  /** Says each problem once, not at every attempt. */
  #problem(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    if (message === this.#lastProblem || this.#stop.signal.aborted) return
    this.#lastProblem = message
    this.#options.log.warn(
      { err: error, servers: this.#options.servers },
      'NATS is not reachable, trying again until it is',
    )
  }

  #open(connection: NatsConnection, registered: Registered): void {
    if (connection.isClosed()) return
    registered.live = connection.subscribe(registered.subject, {
      ...(registered.queue === undefined ? {} : { queue: registered.queue }),
      callback: (error, message) => {
        if (error === null) registered.handler(fromRequest(message))
        else this.#options.log.error({ err: error, subject: registered.subject }, 'subscription')
      },
    })
  }
}

function fromMessage(message: Msg): BusMessage {
  return { data: message.data, header: (name) => headerOf(message, name) }
}

function fromRequest(message: Msg): BusRequest {
  return {
    ...fromMessage(message),
    subject: message.subject,
    replyTo: message.reply,
    respond: (data, headers) => {
      message.respond(data, headers === undefined ? {} : { headers: toHeaders(headers) })
    },
  }
}

function headerOf(message: Msg, name: string): string | undefined {
  return message.headers?.has(name) === true ? message.headers.get(name) : undefined
}

function toHeaders(values: Readonly<Record<string, string>>): MsgHdrs {
  const made = natsHeaders()
  for (const [name, value] of Object.entries(values)) made.set(name, value)
  return made
}

function requestFault(error: unknown, subject: string, timeoutMs: number): Fault {
  if (error instanceof Fault) return error
  const options = { cause: error }
  const details = { subject }
  if (error instanceof TimeoutError) {
    return new Fault('NODE_TIMEOUT', `no answer within ${timeoutMs} ms`, details, options)
  }
  if (error instanceof NoRespondersError || error instanceof RequestError) {
    if (error instanceof RequestError && !error.isNoResponders()) {
      return new Fault('NODE_OFFLINE', error.message, details, options)
    }
    return new Fault('NODE_OFFLINE', 'the node is not connected', details, options)
  }
  if (error instanceof ClosedConnectionError || error instanceof DrainingConnectionError) {
    return new Fault('NODE_OFFLINE', 'no connection to NATS', details, options)
  }
  return Fault.from(error)
}

async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const gone = Promise.withResolvers<never>()
  const onAbort = () => gone.reject(new Fault('CALLER_GONE', 'the caller has gone'))
  signal.addEventListener('abort', onAbort)
  try {
    return await Promise.race([work, gone.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
    // The loser of the race may still fail, and nobody listens any more.
    work.catch(() => undefined)
  }
}
