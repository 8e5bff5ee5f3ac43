import { Usual } from './usual.ts'

const RETRY_AFTER_MS = { min: 10, max: 10_000, unknown: 100 } as const
/** Weight of the newest call in the mean. Good news counts for more: a function that hung and is well again is not refused for long. */
const WEIGHT = { longer: 0.05, shorter: 0.2 } as const
/** Calls take longer than the mean, and those at the end of a queue pay for all before them. */
const MARGIN = 1.25

/** How long a function has its calls, and what follows from that for those that wait. */
export class ServiceTime {
  #meanMs: number | undefined
  readonly #usualMs = new Usual()

  /** Of most calls: one that had to wait for a processor does not change it much. Undefined while nothing is known. */
  get usualMs(): number | undefined {
    return this.#usualMs.value
  }

  /** @param tookMs - from the sending of a call until its runner had ended it */
  note(tookMs: number): void {
    const mean = this.#meanMs ?? tookMs
    this.#meanMs = mean + (tookMs - mean) * (tookMs > mean ? WEIGHT.longer : WEIGHT.shorter)
    this.#usualMs.note(tookMs)
  }

  /**
   * Within this a call that comes now and has to wait is most likely answered; 0 while nothing is known.
   *
   * @param waiting - calls before it
   * @param places - calls that the function takes at once
   */
  answerMs(waiting: number, places: number): number {
    if (this.#meanMs === undefined || places === 0) return 0
    return this.#meanMs * ((waiting + 1) / places + 1) * MARGIN
  }

  /** About how long until all that are in the function or wait have been served, in milliseconds. */
  retryAfterMs(waiting: number, places: number): number {
    const { min, max, unknown } = RETRY_AFTER_MS
    if (this.#meanMs === undefined || places === 0) return unknown
    const ms = (this.#meanMs * (waiting + places)) / places
    return Math.ceil(Math.min(max, Math.max(min, ms)))
  }
}
