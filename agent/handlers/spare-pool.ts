import { LOG_KEYS } from '#shared/log-keys.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import type { Engine, HandlerLimits } from './engine.ts'
import { newHandlerId, type HandlerFolders } from './handler-record.ts'
import { HANDLER_TIMEOUTS } from './handler-state.ts'
import { Spare } from './spare.ts'

/** What was in use is in use again soon: a function that is deployed anew, or one that sleeps. */
const LATELY_MS = 600_000
const RETRY_FIRST_MS = 1_000
const RETRY_LAST_MS = 60_000
/** A spare that has waited so long has not failed: something else ended it. */
const STABLE_MS = 60_000

/** Just what is used of a logger; pino's fits. */
export interface SpareLog {
  debug(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface SparePoolOptions {
  readonly engine: Engine
  readonly folders: HandlerFolders
  readonly log: SpareLog
  /** Of each kind; 0: none at all. */
  readonly count: number
  /** From the engine's start to HELLO; default that of handlers. */
  readonly helloMs?: number
  /** Default 600,000: how long spares are kept for what is not in use any more. */
  readonly latelyMs?: number
}

/** A handler that somebody may want to start. */
export interface SpareWant {
  readonly runtime: Runtime
  /** See `Engine.identity`. */
  readonly identity: string
  readonly limits: HandlerLimits
}

/** What the owner knows and the pool goes by. */
export interface SpareNeed {
  /** Of everything that runs here and has no network; the same one may come more than once. */
  readonly wants: readonly SpareWant[]
  /** What all spares together may use now, by their memory limits. */
  readonly memoryMiBMax: number
  /** The engine answers, and nobody waits for it to start something. */
  readonly calm: boolean
}

/** Handlers that can stand in for each other: what cannot be changed once they are started is the same. */
interface Kind {
  readonly runtime: Runtime
  identity: string
  limits: HandlerLimits
  seenAtMs: number
  takenAtMs: number
  /** Of spares in a row that did not start or did not last. */
  failures: number
  retryAtMs: number
}

interface Entry {
  readonly id: string
  readonly kind: Kind
  readonly identity: string
  readonly giveUp: AbortController
  readonly startedAtMs: number
  state: 'starting' | 'waiting' | 'ending'
  spare: Spare | undefined
}

/**
 * Keeps started handlers without a function, so that a deployment or a scale-up does not wait for a container.
 *
 * A kind of spares is a runtime with a memory limit: Node sizes its heap and the engine `/tmp` by the limit that a container
 * is started with, and neither can be changed later. For each kind in use or used lately there are `count`, those taken last
 * first, as long as they fit into the memory that is left over; they are the first to go when it shrinks. One is started
 * at a time, and only while nobody waits for the engine.
 *
 * Spares have no record on the disk, so what an agent leaves behind when it is killed is removed by the next one.
 */
export class SparePool implements AsyncDisposable {
  readonly #options: SparePoolOptions
  readonly #kinds = new Map<string, Kind>()
  readonly #entries = new Map<string, Entry>()
  readonly #work = new Set<Promise<void>>()
  #need: SpareNeed = { wants: [], memoryMiBMax: 0, calm: false }
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: SparePoolOptions) {
    this.#options = options
  }

  /** Handlers that are this pool's own, in whatever state: nobody else's, and no orphans. */
  get ids(): Iterable<string> {
    return this.#entries.keys()
  }

  /** Spares that can be taken now. */
  get waiting(): number {
    return this.#entries.values().filter(isWaiting).toArray().length
  }

  /** Says what holds from now on. Cheap; starts and ends spares in the background. */
  tend(need: SpareNeed): void {
    this.#need = need
    this.#look()
  }

  /** Gives away a spare that fits, the one whose limits are right already before others. */
  take({ runtime, identity, limits }: SpareWant): Spare | undefined {
    const kind = this.#kinds.get(keyOf(runtime, limits))
    const fitting = this.#entries
      .values()
      .filter((entry) => entry.kind === kind && entry.identity === identity && isWaiting(entry))
      .toArray()
    const entry =
      fitting.find(({ spare }) => spare !== undefined && hasLimits(spare, limits)) ?? fitting[0]
    if (kind === undefined || entry?.spare === undefined) return undefined
    this.#entries.delete(entry.id)
    kind.limits = limits
    kind.takenAtMs = performance.now()
    kind.failures = 0
    return entry.spare
  }

  /** Ends and removes all spares. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    for (const entry of this.#entries.values()) this.#end(entry)
    while (this.#work.size > 0) await Promise.all(this.#work)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #look(): void {
    if (this.#closed) return
    const nowMs = performance.now()
    this.#see(nowMs)
    const missing = this.#plan()
    for (const entry of this.#entries.values()) {
      if (entry.state === 'ending') continue
      const { kind, identity, spare } = entry
      const at = identity === kind.identity && spare?.waiting !== false ? missing.indexOf(kind) : -1
      if (at === -1) this.#end(entry)
      else missing.splice(at, 1)
    }
    const busy = this.#entries.values().some((entry) => entry.state !== 'waiting')
    const next = missing.find(({ retryAtMs }) => retryAtMs <= nowMs)
    if (next !== undefined && this.#need.calm && !busy) this.#start(next)
    this.#schedule(missing, nowMs)
  }

  /** Brings the kinds up to date with what is in use. */
  #see(nowMs: number): void {
    for (const { runtime, identity, limits } of this.#need.wants) {
      const key = keyOf(runtime, limits)
      const known = this.#kinds.get(key)
      if (known === undefined) {
        const fresh = { takenAtMs: 0, failures: 0, retryAtMs: 0 }
        this.#kinds.set(key, { runtime, identity, limits, seenAtMs: nowMs, ...fresh })
      } else {
        // Made of something else now: perhaps that is what was wrong.
        if (known.identity !== identity) known.failures = known.retryAtMs = 0
        known.identity = identity
        known.seenAtMs = nowMs
      }
    }
    const { latelyMs = LATELY_MS } = this.#options
    for (const [key, { seenAtMs }] of this.#kinds) {
      if (nowMs - seenAtMs >= latelyMs) this.#kinds.delete(key)
    }
  }

  /** The kinds of all spares that shall be here, the most important first; a kind comes once for each. */
  #plan(): Kind[] {
    const kinds = [...this.#kinds.values()].toSorted((a, b) => b.takenAtMs - a.takenAtMs)
    const wanted: Kind[] = []
    let leftMiB = this.#need.memoryMiBMax
    for (let nth = 0; nth < this.#options.count; nth++) {
      for (const kind of kinds) {
        if (kind.limits.memoryMiB > leftMiB) continue
        leftMiB -= kind.limits.memoryMiB
        wanted.push(kind)
      }
    }
    return wanted
  }

  /** Looks again when a kind may be tried again, and when one has not been used for long. */
  #schedule(missing: readonly Kind[], nowMs: number): void {
    clearTimeout(this.#timer)
    const { latelyMs = LATELY_MS } = this.#options
    const due = [
      ...missing.map(({ retryAtMs }) => retryAtMs),
      ...this.#kinds.values().map(({ seenAtMs }) => seenAtMs + latelyMs),
    ].filter((atMs) => atMs > nowMs)
    if (due.length === 0) return
    this.#timer = setTimeout(() => this.#look(), Math.ceil(Math.min(...due) - nowMs))
    this.#timer.unref()
  }

  #start(kind: Kind): void {
    const { engine, folders, log, helloMs = HANDLER_TIMEOUTS.helloMs } = this.#options
    const { runtime, identity, limits } = kind
    const id = newHandlerId()
    const giveUp = new AbortController()
    const startedAtMs = performance.now()
    const common = { id, kind, identity, giveUp, startedAtMs }
    const entry: Entry = { ...common, state: 'starting', spare: undefined }
    this.#entries.set(id, entry)
    const onEnd = (): void => this.#failed(entry, new Error('its runner is gone'))
    const options = { id, runtime, identity, limits, engine, folders, helloMs, onEnd }
    const start = async (): Promise<void> => {
      try {
        entry.spare = await Spare.start(options, giveUp.signal)
        if (giveUp.signal.aborted) return await this.#remove(entry)
        entry.state = 'waiting'
        const tookMs = Math.round(performance.now() - startedAtMs)
        log.debug({ [LOG_KEYS.handler]: id, runtime, tookMs }, 'spare waits')
      } catch (error) {
        this.#entries.delete(id)
        if (!giveUp.signal.aborted) this.#failed(entry, error)
      }
    }
    this.#track(start())
  }

  /** It did not start, or ended by itself. */
  #failed(entry: Entry, error: unknown): void {
    const { kind, id, startedAtMs } = entry
    const nowMs = performance.now()
    kind.failures = nowMs - startedAtMs < STABLE_MS ? kind.failures + 1 : 1
    const waitMs = RETRY_FIRST_MS * 2 ** Math.min(kind.failures - 1, 16)
    kind.retryAtMs = nowMs + Math.min(waitMs, RETRY_LAST_MS)
    const fields = { [LOG_KEYS.handler]: id, runtime: kind.runtime, [LOG_KEYS.err]: error }
    this.#options.log.warn(fields, 'spare failed')
    this.#look()
  }

  #end(entry: Entry): void {
    if (entry.state === 'ending') return
    const starting = entry.state === 'starting'
    entry.state = 'ending'
    entry.giveUp.abort()
    // One that is still being started is removed by its start.
    if (!starting) this.#track(this.#remove(entry))
  }

  async #remove(entry: Entry): Promise<void> {
    try {
      await entry.spare?.stop()
    } catch (error) {
      // Not ours any more: the owner's next survey finds what is left.
      const fields = { [LOG_KEYS.handler]: entry.id, [LOG_KEYS.err]: error }
      this.#options.log.warn(fields, 'spare not removed yet')
    }
    this.#entries.delete(entry.id)
  }

  #track(work: Promise<void>): void {
    const tracked = work.finally(() => {
      this.#work.delete(tracked)
      this.#look()
    })
    this.#work.add(tracked)
  }
}

function keyOf(runtime: Runtime, { memoryMiB }: HandlerLimits): string {
  return `${runtime} ${memoryMiB}`
}

function isWaiting({ state, spare }: Entry): boolean {
  return state === 'waiting' && spare?.waiting === true
}

function hasLimits({ limits }: Spare, { cpus, pids }: HandlerLimits): boolean {
  return limits.cpus === cpus && limits.pids === pids
}
