import { setTimeout as sleep } from 'node:timers/promises'
import type { Msg, NatsConnection } from '@nats-io/transport-node'
import { lazyValidator } from '#shared/lazy-validator.ts'
import { Fault } from '#shared/fault.ts'
import type { CommandReply, NodeCommand } from '#shared/schemas/command.ts'
import type { Hello, Inventory } from '#shared/schemas/health.ts'
import { HelloReply } from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import { backoffMs } from './backoff.ts'
import type { CommandKeeper } from './command-keeper.ts'
import { InvokeResponder, type InvokeResponderOptions } from './invoke-responder.ts'
import type { CommandLog } from './log.ts'
import type { LogBook } from './log-book.ts'
import { LogResponder } from './log-responder.ts'
import type { NatsLink } from './nats-link.ts'
import type { TrustKeeper } from './trust-keeper.ts'

const HELLO_TIMEOUT_MS = 5_000
const HELLO_RETRY_MIN_MS = 200
const HELLO_RETRY_MAX_MS = 10_000

const helloReplyValidator = lazyValidator(HelloReply)

export interface NodeServiceOptions {
  readonly node: string
  readonly keeper: Pick<CommandKeeper, 'receive' | 'holds' | 'command' | 'generation'>
  readonly trust: Pick<TrustKeeper, 'adopt' | 'document'>
  readonly invoker: InvokeResponderOptions['invoker']
  readonly logs: LogBook
  readonly inventory: () => Promise<Inventory>
  /** A new command is on the disk. */
  readonly onCommand: (command: NodeCommand) => void
  /** The controller says that this node was removed, and its signed command is to run nothing. */
  readonly onRemoved: () => void
  readonly log: CommandLog
}

/**
 * What this node answers over NATS: commands, calls, logs; and its hello whenever the broker is reached again, until the
 * controller has answered. It hears nothing and misses nothing while the broker is away: truth comes with the next hello.
 */
export class NodeService implements AsyncDisposable {
  readonly #options: NodeServiceOptions
  readonly #stopping = new AbortController()
  readonly #invokes: InvokeResponder
  readonly #logs: LogResponder
  #link: NatsLink | undefined
  /** Commands under way; none rejects. */
  readonly #commands = new Set<Promise<void>>()
  #hello: { readonly stop: AbortController; readonly ended: Promise<void> } | undefined

  constructor(options: NodeServiceOptions) {
    const { node, invoker, logs, log } = options
    this.#options = options
    this.#invokes = new InvokeResponder({ invoker, log })
    const publish = (subject: string, payload: string): boolean =>
      this.#link?.publish(subject, payload) ?? false
    this.#logs = new LogResponder({ node, logs, log, publish })
  }

  /** The link calls `connected` and `up`; hand it over before its first connection can be there. */
  attach(link: NatsLink): void {
    this.#link = link
  }

  /** Subscribes on a new connection. */
  connected(connection: NatsConnection): void {
    const { node, log } = this.#options
    const failed = (subject: string, error: Error): void =>
      log.error({ err: error, subject }, 'subscription ended')
    const on = (subject: string, handle: (message: Msg) => void): void => {
      connection.subscribe(subject, {
        callback: (error, message) => {
          if (error === null) handle(message)
          else failed(subject, error)
        },
      })
    }
    on(subjects.command(node), (message) => this.#command(message))
    on(subjects.invoke(node), (message) => this.#invokes.handle(message))
    on(subjects.logs(node), (message) => this.#logs.handle(message))
  }

  /** The broker can be reached (again): says hello until the controller answers. */
  up(): void {
    this.#hello?.stop.abort()
    const stop = new AbortController()
    const signal = AbortSignal.any([stop.signal, this.#stopping.signal])
    this.#hello = { stop, ended: this.#sayHello(signal) }
  }

  /** Takes no more calls and commands; resolves when those under way are answered. A command that is kept waits for the next agent. */
  async close(): Promise<void> {
    this.#stopping.abort()
    this.#logs.close()
    await Promise.all([this.#invokes.close(), this.#hello?.ended, ...this.#commands])
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #command(message: Msg): void {
    // Without an answer: the controller sends it again with the next hello.
    if (this.#stopping.signal.aborted) return
    const work = this.#answer(message).finally(() => this.#commands.delete(work))
    this.#commands.add(work)
  }

  async #answer(message: Msg): Promise<void> {
    try {
      const reply = await this.#receive(parseJson(message.data))
      message.respond(JSON.stringify(reply))
    } catch (error) {
      this.#options.log.error({ err: error }, 'command not answered')
    }
  }

  async #receive(envelope: unknown): Promise<CommandReply> {
    const { keeper, onCommand } = this.#options
    const reply = await keeper.receive(envelope)
    const stopping = this.#stopping.signal.aborted
    if (reply.accepted && keeper.command !== undefined && !stopping) onCommand(keeper.command)
    return reply
  }

  async #sayHello(signal: AbortSignal): Promise<void> {
    const { log } = this.#options
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        await this.#helloOnce(signal)
        return
      } catch (error) {
        if (signal.aborted) return
        if (attempt % 20 === 0) log.warn({ err: error }, 'no answer to hello, asking on')
        const waitMs = backoffMs(attempt, HELLO_RETRY_MIN_MS, HELLO_RETRY_MAX_MS)
        await sleep(waitMs, undefined, { signal }).catch(() => {})
      }
    }
  }

  async #helloOnce(signal: AbortSignal): Promise<void> {
    const { node, keeper, trust, inventory, log } = this.#options
    const hello: Hello = {
      node,
      generation: keeper.generation,
      trustVersion: trust.document.version,
      inventory: await inventory(),
    }
    if (this.#link === undefined) throw new RangeError('no link attached')
    const options = { timeoutMs: HELLO_TIMEOUT_MS }
    const message = await this.#link.request(
      subjects.hello(node),
      JSON.stringify(hello),
      options,
      signal,
    )
    const reply = parseJson(message.data)
    if (!helloReplyValidator.Check(reply)) {
      throw new Fault('COMMAND_MALFORMED', 'the answer to hello is not one', {
        bytes: message.data.length,
      })
    }
    log.info(
      { generation: hello.generation, command: reply.command !== undefined },
      'hello answered',
    )
    if (reply.trust !== undefined) {
      await trust.adopt(reply.trust).catch((error: unknown) => {
        log.error({ err: error }, 'trust documents refused')
      })
    }
    if (reply.command !== undefined && !keeper.holds(reply.command))
      await this.#receive(reply.command)
    // Only the signed command counts: a broker alone can say anything.
    const runsNothing = (keeper.command?.functions.length ?? 0) === 0
    if (reply.removed === true && runsNothing) this.#options.onRemoved()
  }
}

/** The value, or undefined for what is no JSON: schema checks refuse that with a name. */
function parseJson(data: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data))
  } catch {
    return undefined
  }
}
