import { blocks, room } from '#agent/sockets/index.ts'
import { bodyGarbage } from './body-garbage.ts'

const LOOK_EVERY_MS = 5_000
/** Heartbeats and samples stay below; a call a second does not. */
const QUIET_CPU_SHARE = 0.02
/** Less work than this leaves nothing that is worth a pause. */
const WORKED_CPU_MS = 250
const US_PER_MS = 1_000

export interface MemoryTrimOptions {
  /** Collects all garbage and gives memory back to the system; stops the event loop for tens of milliseconds. */
  readonly collect: () => void
  /** Processor time used by this process since its start, ms. */
  readonly cpuMs?: () => number
  /** Default 5,000. */
  readonly everyMs?: number
}

/**
 * Gives memory back once the work is over. An engine that has nothing to do collects no garbage, so an agent would keep what its
 * busiest minute took, for as long as nobody calls; on a host that has it all for functions that is too much.
 *
 * Looks at its own processor time only, so it knows no protocol: after work, at the first quiet look.
 */
export class MemoryTrim implements Disposable {
  readonly #collect: () => void
  readonly #cpuMs: () => number
  readonly #everyMs: number
  readonly #timer: NodeJS.Timeout
  #seenMs: number
  #trimmedMs = 0

  constructor({ collect, cpuMs = ownCpuMs, everyMs = LOOK_EVERY_MS }: MemoryTrimOptions) {
    this.#collect = collect
    this.#cpuMs = cpuMs
    this.#everyMs = everyMs
    this.#seenMs = cpuMs()
    this.#timer = setInterval(() => this.#look(), everyMs).unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const nowMs = this.#cpuMs()
    const quiet = nowMs - this.#seenMs < this.#everyMs * QUIET_CPU_SHARE
    this.#seenMs = nowMs
    if (!quiet || nowMs - this.#trimmedMs < WORKED_CPU_MS) return
    this.#collect()
    // What collecting took is no work.
    this.#seenMs = this.#cpuMs()
    this.#trimmedMs = this.#seenMs
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
