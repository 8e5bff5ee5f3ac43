import type { Clock } from '#shared/clock.ts'

const ROUND_EVERY_MS_MAX = 60_000
const AFTER_ERROR_MS = 1_000

export interface LoopOptions {
  /** One look at everything. @returns when to look again at the latest, wall clock; nothing: when woken */
  readonly round: () => Promise<number | undefined>
  readonly clock: Clock
  readonly onError: (error: unknown) => void
}

/**
 * Runs `round` when woken or when its own time has come, never twice at once, and never beside `exclusive` work.
 *
 * Waking is cheap: any number of wakes while a round runs make one more round.
 */
export class Loop {
  readonly #options: LoopOptions
  #tail: Promise<unknown> = Promise.resolve()
  #pending = false
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: LoopOptions) {
    this.#options = options
  }

  wake(): void {
    if (this.#pending || this.#closed) return
    this.#pending = true
    void this.exclusive(() => this.#round()).catch(this.#options.onError)
  }

  /** Runs `work` when what runs now has ended. */
  async exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(work)
    this.#tail = run.catch(() => undefined)
    return run
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#tail
  }

  async #round(): Promise<void> {
    this.#pending = false
    if (this.#closed) return
    clearTimeout(this.#timer)
    const { clock, round, onError } = this.#options
    let atMs: number | undefined
    try {
      atMs = await round()
    } catch (error) {
      onError(error)
      atMs = clock.nowMs() + AFTER_ERROR_MS
    }
    if (atMs === undefined) return
    const pauseMs = Math.min(Math.max(atMs - clock.nowMs(), 10), ROUND_EVERY_MS_MAX)
    this.#timer = setTimeout(() => this.wake(), pauseMs)
    this.#timer.unref()
  }
}
