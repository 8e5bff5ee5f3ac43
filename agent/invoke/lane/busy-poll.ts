import { Usual } from './usual.ts'

/** So many calls one by one are a caller of its own, not a moment of many. */
const ALONE_FROM = 16

/**
 * Waits awake where calls come one by one and an answer, or the next call, usually comes within a fraction of a millisecond: to
 * wake a core that has gone to sleep takes longer than a function that only adds two numbers, on a virtual machine several times as
 * long. The event loop looks for what has come and does not sleep; all other events are served as ever. Calls that come together
 * share the cores with their callers and functions, and are never waited for in this way; nor is what usually takes longer than the
 * limit, its waking included.
 */
export class BusyPoll {
  readonly #inWork: () => number
  readonly #limitMs: number
  readonly #nowMs: () => number
  /** From the end of a call to the next one. */
  readonly #gapMs = new Usual()
  /** Calls in a row that were alone when they came. */
  #alone = 0
  #endedAtMs: number | undefined
  #untilMs = 0
  #looking = false

  /**
   * @param inWork - calls of the node that were sent and have not ended
   * @param limitMs - for an answer, and for a call; 0: never. Linux' haltpoll lets an idle core of a guest wait awake for 0.2
   * @param nowMs - monotonic
   */
  constructor(inWork: () => number, limitMs: number, nowMs: () => number) {
    this.#inWork = inWork
    this.#limitMs = limitMs
    this.#nowMs = nowMs
  }

  /**
   * A call has been sent, and counts as in work.
   *
   * @param startedAtMs - when it came: before now, if it had to wait for another one
   * @param usualMs - how long its function usually has a call; undefined: not known
   */
  sent(nowMs: number, startedAtMs: number, usualMs: number | undefined): void {
    if (this.#inWork() !== 1 || startedAtMs < nowMs) {
      this.#alone = 0
      this.#untilMs = 0
      return
    }
    this.#alone += 1
    if (this.#endedAtMs !== undefined) this.#gapMs.note(nowMs - this.#endedAtMs)
    this.#await(nowMs, usualMs)
  }

  /** A call has ended, and is not in work any more. */
  ended(nowMs: number): void {
    this.#endedAtMs = nowMs
    if (this.#inWork() === 0) this.#await(nowMs, this.#gapMs.value)
  }

  #await(nowMs: number, usualMs: number | undefined): void {
    const worth = this.#alone > ALONE_FROM && usualMs !== undefined && usualMs < this.#limitMs
    this.#untilMs = worth ? nowMs + this.#limitMs : 0
    if (!worth || this.#looking) return
    this.#looking = true
    setImmediate(this.#look)
  }

  /** A turn of the event loop with something left to do looks for events and does not wait for one. */
  readonly #look = (): void => {
    this.#looking = this.#inWork() <= 1 && this.#nowMs() < this.#untilMs
    if (this.#looking) setImmediate(this.#look)
  }
}
