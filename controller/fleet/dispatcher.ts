import type { Logger } from 'pino'
import { Compile } from 'typebox/compile'
import type { Clock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import { CommandReply } from '#shared/schemas/command.ts'
import { subjects } from '#shared/subjects.ts'
import type { NodeCommandRow } from '../store/index.ts'
import type { Bus } from './bus.ts'
import type { Commands } from './commands.ts'
import type { Kept, Liveness } from './liveness.ts'

const REPLY_TIMEOUT_MS = 10_000
const SENDS_AT_ONCE = 32
const RETRY_MS_MIN = 1_000
const RETRY_MS_MAX = 60_000
const replyValidator = Compile(CommandReply)

export interface DispatcherOptions {
  readonly bus: Bus
  readonly commands: Commands
  readonly liveness: Liveness
  readonly clock: Clock
  readonly log: Logger
  /** A number from 0 to 1. */
  readonly random: () => number
  /** The node has answered, or its command could not be made. */
  readonly onChange: (node: string) => void
}

interface Lane {
  running: boolean
  /** Poked again while running. */
  again: boolean
  failures: number
  retry: NodeJS.Timeout | undefined
  sentGeneration: number
}

type Step = 'done' | 'again' | 'later'

export interface DispatchCounts {
  accepted: number
  refused: number
  failed: number
}

/**
 * Brings each node its newest command, one at a time per node, until the node keeps it.
 *
 * Poking is cheap and may be done at any time: what is sent is decided from SQL and from what the node says, never from
 * why it was poked. A node that cannot be reached is left alone; its hello or next heartbeat pokes again.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions
  readonly #lanes = new Map<string, Lane>()
  readonly counts: DispatchCounts = { accepted: 0, refused: 0, failed: 0 }
  readonly #running = new Set<Promise<void>>()
  readonly #slots: (() => void)[] = []
  #free = SENDS_AT_ONCE
  #closed = false

  constructor(options: DispatcherOptions) {
    this.#options = options
  }

  /** Generation of the newest command that was put on its way since this controller started. */
  sentGeneration(node: string): number {
    return this.#lanes.get(node)?.sentGeneration ?? 0
  }

  /** A command went to the node another way: in the reply to its hello. */
  noteSent(node: string, generation: number): void {
    this.#lane(node).sentGeneration = generation
  }

  /**
   * @param patient - True for what repeats by itself (heartbeats): it does not cut short the pause after a refusal
   */
  poke(node: string, { patient = false }: { readonly patient?: boolean } = {}): void {
    if (this.#closed) return
    const lane = this.#lane(node)
    if (lane.running) {
      lane.again ||= !patient
      return
    }
    if (lane.retry !== undefined) {
      if (patient) return
      clearTimeout(lane.retry)
      lane.retry = undefined
    }
    lane.running = true
    const run = this.#run(node, lane)
    this.#running.add(run)
    void run.finally(() => this.#running.delete(run))
  }

  forget(node: string): void {
    clearTimeout(this.#lanes.get(node)?.retry)
    this.#lanes.delete(node)
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const lane of this.#lanes.values()) clearTimeout(lane.retry)
    await Promise.all(this.#running)
  }

  async #run(node: string, lane: Lane): Promise<void> {
    let next: Step
    do {
      lane.again = false
      next = await this.#attempt(node, lane)
    } while (!this.#closed && (next === 'again' || lane.again))
    lane.running = false
    if (next === 'done') lane.failures = 0
    if (next !== 'later' || this.#closed) return
    lane.failures += 1
    const pauseMs = Math.min(RETRY_MS_MIN * 2 ** (lane.failures - 1), RETRY_MS_MAX)
    lane.retry = setTimeout(
      () => {
        lane.retry = undefined
        this.poke(node)
      },
      pauseMs * (0.75 + this.#options.random() / 2),
    )
    lane.retry.unref()
  }

  async #attempt(node: string, lane: Lane): Promise<Step> {
    const { commands, liveness, clock, log, onChange } = this.#options
    try {
      const kept = liveness.get(node)?.kept
      const row = await commands.ensure(node, kept)
      if (row === undefined || isKept(row, kept)) return 'done'
      return await this.#send(row, lane)
    } catch (error) {
      const fault = Fault.from(error)
      this.counts.failed += 1
      if (Fault.is(error, 'NODE_OFFLINE') || Fault.is(error, 'NODE_TIMEOUT')) {
        log.debug({ [LOG_KEYS.node]: node, code: fault.code }, 'node not reached')
        return liveness.get(node)?.online === true ? 'later' : 'done'
      }
      if (fault.code !== 'SHUTTING_DOWN') {
        log.error({ [LOG_KEYS.node]: node, err: error }, 'command not sent')
      }
      liveness.refused(node, { code: fault.code, message: fault.message, atMs: clock.nowMs() })
      onChange(node)
      return 'later'
    }
  }

  async #send(row: NodeCommandRow, lane: Lane): Promise<Step> {
    const { bus, liveness, clock, log, onChange, commands } = this.#options
    const { node, generation, envelope } = row
    await this.#takeSlot()
    let reply: unknown
    try {
      lane.sentGeneration = generation
      const data = new TextEncoder().encode(JSON.stringify(envelope))
      const options = { timeoutMs: REPLY_TIMEOUT_MS }
      reply = parseReply((await bus.request(subjects.command(node), data, options)).data)
    } finally {
      this.#returnSlot()
    }
    if (!replyValidator.Check(reply)) {
      throw new Fault('COMMAND_MALFORMED', "the node's answer to its command cannot be read", {
        node,
      })
    }
    const nowMs = clock.nowMs()
    // A node that keeps this very generation has it: a repeat is refused, and that is fine.
    if (
      reply.accepted ||
      (reply.code === 'COMMAND_REPLAYED' && reply.generation === row.generation)
    ) {
      this.counts.accepted += 1
      lane.failures = 0
      liveness.answered(node, generation, undefined, nowMs)
      await commands.keptBy(node, generation)
      log.info({ [LOG_KEYS.node]: node, generation }, 'command accepted')
      onChange(node)
      return 'done'
    }
    this.counts.refused += 1
    const { code, message } = reply
    log.warn({ [LOG_KEYS.node]: node, generation, code, message }, 'command refused')
    liveness.answered(node, reply.generation, { code, message, atMs: nowMs, generation }, nowMs)
    onChange(node)
    // It has seen a higher generation: the next attempt goes above that, at once the first time.
    const above = code === 'COMMAND_REPLAYED' && reply.generation > generation
    return above && lane.failures === 0 ? this.#countFailure(lane) : 'later'
  }

  #countFailure(lane: Lane): Step {
    lane.failures += 1
    return 'again'
  }

  #lane(node: string): Lane {
    const known = this.#lanes.get(node)
    if (known !== undefined) return known
    const lane: Lane = {
      running: false,
      again: false,
      failures: 0,
      retry: undefined,
      sentGeneration: 0,
    }
    this.#lanes.set(node, lane)
    return lane
  }

  async #takeSlot(): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1
      return
    }
    const turn = Promise.withResolvers<void>()
    this.#slots.push(turn.resolve)
    await turn.promise
  }

  #returnSlot(): void {
    const next = this.#slots.shift()
    if (next === undefined) this.#free += 1
    else next()
  }
}

function isKept(row: NodeCommandRow, kept: Kept | undefined): boolean {
  // Not heard from since this controller started: what it last said is in SQL.
  const generation = kept?.generation ?? row.acceptedGeneration
  if (generation !== row.generation) return false
  return kept?.stateDigest === undefined || kept.stateDigest === row.stateDigest
}

function parseReply(data: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(data))
  } catch {
    return undefined
  }
}
