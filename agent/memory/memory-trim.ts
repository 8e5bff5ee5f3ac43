import { performance } from 'node:perf_hooks'
import { blocks, room } from '#agent/sockets/index.ts'
import { bodyGarbage } from './body-garbage.ts'

const LOOK_EVERY_MS = 5_000
/** Of a core. */
const QUIET_CPU_SHARE = 0.02
/** Of the event loop, a second: heartbeats and probes stay below, ten calls a second do not. */
const UNUSED_EVENTS_PER_S = 20
/** Less work than this leaves nothing that is worth a pause. */
const WORKED_CPU_MS = 250
/** In use, but the work is over; a pause meets calls then, so not every few seconds. */
const CALM_CPU_SHARE = 0.05
const CALM_LOOKS = 12
const GROWN_BYTES = 16 * 1_048_576
const US_PER_MS = 1_000
const MS_PER_S = 1_000

export interface MemoryTrimOptions {
  /** Collects all garbage and gives memory back to the system; stops the event loop for tens of milliseconds. */
  readonly collect: () => void
  /** Processor time used by this process since its start, ms. */
  readonly cpuMs?: () => number
  /** Of its event loop since its start: what came from sockets and threads. */
  readonly events?: () => number
  readonly residentBytes?: () => number
  /** Default 5,000. */
  readonly everyMs?: number
}

/**
 * Gives memory back once the work is over. An engine that has nothing to do collects no garbage, so an agent would keep what its
 * busiest minute took, for as long as nobody calls; on a host that has it all for functions that is too much.
 *
 * Looks at its own processor time and at how often its event loop was woken, so it knows no protocol: after work, at the first quiet look;
 * with a few calls every second, after a minute of that, and only when it has grown.
 */
export class MemoryTrim implements Disposable {
  readonly #collect: () => void
  readonly #cpuMs: () => number
  readonly #events: () => number
  readonly #residentBytes: () => number
  readonly #everyMs: number
  readonly #timer: NodeJS.Timeout
  #seenMs: number
  #seenEvents: number
  #calmLooks = 0
  #trimmedMs = 0
  #trimmedBytes = 0

  constructor(options: MemoryTrimOptions) {
    const { collect, cpuMs = ownCpuMs, events = ownEvents, everyMs = LOOK_EVERY_MS } = options
    this.#collect = collect
    this.#cpuMs = cpuMs
    this.#events = events
    this.#residentBytes = options.residentBytes ?? (() => process.memoryUsage.rss())
    this.#everyMs = everyMs
    this.#seenMs = cpuMs()
    this.#seenEvents = events()
    this.#timer = setInterval(() => this.#look(), everyMs).unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const [nowMs, events] = [this.#cpuMs(), this.#events()]
    const cpuShare = (nowMs - this.#seenMs) / this.#everyMs
    const eventsPerS = (events - this.#seenEvents) / (this.#everyMs / MS_PER_S)
    this.#seenMs = nowMs
    this.#seenEvents = events
    this.#calmLooks = cpuShare < CALM_CPU_SHARE ? this.#calmLooks + 1 : 0
    if (nowMs - this.#trimmedMs < WORKED_CPU_MS) return
    const isQuiet = cpuShare < QUIET_CPU_SHARE && eventsPerS < UNUSED_EVENTS_PER_S
    if (!isQuiet && !this.#isWorthAPause()) return
    this.#collect()
    // What collecting took is no work.
    this.#seenMs = this.#cpuMs()
    this.#trimmedMs = this.#seenMs
    this.#trimmedBytes = this.#residentBytes()
    this.#calmLooks = 0
  }

  #isWorthAPause(): boolean {
    if (this.#calmLooks < CALM_LOOKS) return false
    return this.#residentBytes() - this.#trimmedBytes >= GROWN_BYTES
  }
}

/** Nothing without Node's flag for it: see `deploy/agent-memory.sh`. */
export function startMemoryTrim(): Disposable {
  const { gc } = globalThis
  if (gc === undefined) return { [Symbol.dispose]: () => undefined }
  blocks.onGarbage = bodyGarbage({
    young: () => gc({ type: 'minor', execution: 'sync' }),
    all: () => gc({ type: 'major', execution: 'sync' }),
    bytes: () => process.memoryUsage().arrayBuffers,
    bytesMax: 2 * room.bodyBytes,
  })
  return new MemoryTrim({
    collect: () => {
      blocks.drop()
      gc({ type: 'major', flavor: 'last-resort' })
    },
  })
}

function ownCpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / US_PER_MS
}

function ownEvents(): number {
  return performance.nodeTiming.uvMetricsInfo.events
}
