import { setTimeout as sleep } from 'node:timers/promises'
import {
  connect,
  RequestError,
  TimeoutError,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
} from '@nats-io/transport-node'
import { Fault } from '#shared/fault.ts'
import { subjects } from '#shared/subjects.ts'
import { backoffMs } from './backoff.ts'
import type { Identity } from './identity.ts'
import type { CommandLog } from './log.ts'
import { signBy } from './nats-signer.ts'

const CONNECT_WITHIN_MS = 5_000
const RETRY_MIN_MS = 100
const RETRY_MAX_MS = 5_000
/** A broker that went away without a word is noticed within three of these. */
const PING_EVERY_MS = 10_000
const DRAIN_WITHIN_MS = 2_000

export interface NatsLinkOptions {
  readonly identity: Pick<Identity, 'node' | 'natsUrls' | 'userJwt' | 'seed'>
  /** Called once per connection object, before anything can be received: the place to subscribe. */
  readonly onConnection: (connection: NatsConnection) => void
  /** Called whenever the broker can be reached again, the first time included. */
  readonly onUp: () => void
  readonly log: CommandLog
}

/**
 * This node's connection to the broker: tried for ever with backoff, in the background. Nothing waits for it except what needs it.
 *
 * ```
 *   connecting --> up <--> down        (nats.js reconnects and subscribes again by itself)
 *        ^          |
 *        +--closed--+                  (only when nats.js gives up)
 * ```
 */
export class NatsLink implements AsyncDisposable {
  readonly #options: NatsLinkOptions
  readonly #stopping = new AbortController()
  #running: Promise<void> | undefined
  #connection: NatsConnection | undefined
  #up = false
  /** Aborted when the broker is lost: what was asked of it will not be answered. */
  #lost = new AbortController()
  #attempt = 0
  #downSinceMs = 0
  #wakeUp = Promise.withResolvers<void>()

  constructor(options: NatsLinkOptions) {
    this.#options = options
  }

  /** Begins to connect, in the background; once. */
  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  get connected(): boolean {
    return this.#up
  }

  /** Resolves when the broker can be reached. */
  async whenUp(signal: AbortSignal): Promise<void> {
    while (!this.#up) {
      signal.throwIfAborted()
      const gone = Promise.withResolvers<never>()
      const onAbort = (): void => gone.reject(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        await Promise.race([this.#wakeUp.promise, gone.promise])
      } finally {
        signal.removeEventListener('abort', onAbort)
      }
    }
  }

  /** Sends when the broker can be reached; nothing is queued for later. @returns false when it was not sent */
  publish(subject: string, payload: string | Uint8Array): boolean {
    if (!this.#up || this.#connection === undefined) return false
    this.#connection.publish(subject, payload)
    return true
  }

  /** @throws Fault `NODE_OFFLINE` (no broker, or nobody answers there), `NODE_TIMEOUT`; the signal's reason */
  async request(
    subject: string,
    payload: string | Uint8Array,
    { timeoutMs, headers }: { readonly timeoutMs: number; readonly headers?: MsgHdrs },
    signal: AbortSignal,
  ): Promise<Msg> {
    signal.throwIfAborted()
    const connection = this.#connection
    if (!this.#up || connection === undefined) {
      throw new Fault('NODE_OFFLINE', 'the broker cannot be reached')
    }
    const either = AbortSignal.any([signal, this.#lost.signal])
    const gone = Promise.withResolvers<never>()
    const onAbort = (): void => gone.reject(either.reason)
    either.addEventListener('abort', onAbort, { once: true })
    try {
      const options = { timeout: timeoutMs, ...(headers === undefined ? {} : { headers }) }
      return await Promise.race([connection.request(subject, payload, options), gone.promise])
    } catch (error) {
      signal.throwIfAborted()
      throw requestFault(error, subject, timeoutMs)
    } finally {
      either.removeEventListener('abort', onAbort)
    }
  }

  /** Hands over what was published, then disconnects. */
  async close(): Promise<void> {
    this.#stopping.abort()
    const connection = this.#connection
    if (connection !== undefined) {
      const drained = this.#up ? connection.drain() : connection.close()
      // A broker that hangs must not hold up the end of the agent.
      const limit = sleep(DRAIN_WITHIN_MS, undefined, { ref: false })
      await Promise.race([drained.catch(() => {}), limit])
      await connection.close().catch(() => {})
    }
    await this.#running
    this.#up = false
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#connectAndWatch(signal)
      } catch (error) {
        if (signal.aborted) return
        if (this.#attempt % 20 === 0) {
          const { natsUrls } = this.#options.identity
          this.#options.log.warn({ err: error, natsUrls }, 'broker not reached, trying on')
        }
      }
      this.#setDown()
      await sleep(this.#nextDelayMs(), undefined, { signal }).catch(() => {})
    }
  }

  async #connectAndWatch(signal: AbortSignal): Promise<void> {
    const { identity, onConnection } = this.#options
    const connecting = connect({
      servers: [...identity.natsUrls],
      name: `shoal-agent ${identity.node}`,
      authenticator: signBy(identity.userJwt, identity.seed),
      inboxPrefix: subjects.inbox(identity.node),
      timeout: CONNECT_WITHIN_MS,
      maxReconnectAttempts: -1,
      reconnectDelayHandler: () => this.#reconnectDelayMs(),
      // The controller may put this node's account back: keep trying.
      ignoreAuthErrorAbort: true,
      pingInterval: PING_EVERY_MS,
      maxPingOut: 2,
      noAsyncTraces: true,
    })
    const connection = await orStopped(connecting, signal)
    if (connection === undefined) return
    this.#connection = connection
    onConnection(connection)
    this.#setUp()
    for await (const status of connection.status()) {
      if (status.type === 'disconnect') this.#setDown()
      else if (status.type === 'reconnect') this.#setUp()
      else if (status.type === 'error') {
        this.#options.log.warn({ err: status.error }, 'broker reports an error')
      }
    }
  }

  #setUp(): void {
    this.#attempt = 0
    this.#up = true
    this.#options.log.info({}, 'broker connected')
    this.#wakeUp.resolve()
    this.#options.onUp()
  }

  #setDown(): void {
    if (!this.#up) return
    this.#up = false
    this.#downSinceMs = performance.now()
    this.#lost.abort(new Error('connection lost'))
    this.#lost = new AbortController()
    this.#wakeUp = Promise.withResolvers<void>()
    if (!this.#stopping.signal.aborted) this.#options.log.warn({}, 'broker lost')
  }

  /**
   * A third of the time that the broker has been away. By the clock and not by counting: nats.js asks several times per try.
   */
  #reconnectDelayMs(): number {
    const awayMs = performance.now() - this.#downSinceMs
    const waitMs = Math.min(RETRY_MAX_MS, Math.max(RETRY_MIN_MS, awayMs / 3))
    return Math.round(waitMs * (1 - Math.random() / 2))
  }

  #nextDelayMs(): number {
    const waitMs = backoffMs(this.#attempt, RETRY_MIN_MS, RETRY_MAX_MS)
    this.#attempt += 1
    return waitMs
  }
}

/** The connection, or undefined when the link was stopped first; a connection that comes too late is closed. */
async function orStopped(
  connecting: Promise<NatsConnection>,
  signal: AbortSignal,
): Promise<NatsConnection | undefined> {
  const stopped = Promise.withResolvers<undefined>()
  const onAbort = (): void => stopped.resolve(undefined)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    const first = await Promise.race([connecting, stopped.promise])
    if (first === undefined) {
      connecting.then((late) => late.close()).catch(() => {})
    }
    return first
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function requestFault(error: unknown, subject: string, timeoutMs: number): Fault {
  const cause = { cause: error }
  if (error instanceof TimeoutError) {
    return new Fault('NODE_TIMEOUT', `no answer within ${timeoutMs} ms`, { subject }, cause)
  }
  const none = error instanceof RequestError && error.isNoResponders()
  const message = none ? 'nobody answers there' : `the broker was lost: ${String(error)}`
  return new Fault('NODE_OFFLINE', message, { subject }, cause)
}
