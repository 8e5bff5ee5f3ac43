/** How busy a lane is. */
export interface LaneDemand {
  readonly inFlight: number
  readonly waiting: number
  /** Most calls at once, in flight and waiting, since this was asked last. */
  readonly peak: number
  /** When a call got its outcome last; undefined: none yet. Monotonic milliseconds. */
  readonly lastCallAtMs: number | undefined
}

/**
 * Measures a lane for whoever decides how many handlers it gets. On the way of a call it costs a comparison; nothing is
 * called back but once per `alarmAbove`, and only for a call that has to wait.
 */
export class Gauge {
  /** Most calls at once since the last `take`. */
  #peak = 0
  #alarmAbove = Number.POSITIVE_INFINITY
  #grows = false
  /** When a call got its outcome last; undefined: none yet. Monotonic milliseconds. */
  lastCallAtMs: number | undefined

  /** @param calls - in flight and waiting */
  note(calls: number): void {
    if (calls > this.#peak) this.#peak = calls
  }

  /** As `note`, of a call that waits. @returns true when that is to be told: once per `alarmAbove` */
  noteWaiting(calls: number): boolean {
    this.note(calls)
    if (calls <= this.#alarmAbove) return false
    this.#alarmAbove = Number.POSITIVE_INFINITY
    return true
  }

  alarmAbove(calls: number): void {
    this.#alarmAbove = calls
    this.#grows = calls !== Number.POSITIVE_INFINITY
  }

  /** There may be more handlers when calls wait: how long they wait now says little. */
  get grows(): boolean {
    return this.#grows
  }

  /** Begins a new peak. */
  take(inFlight: number, waiting: number): LaneDemand {
    const peak = Math.max(this.#peak, inFlight + waiting)
    this.#peak = inFlight + waiting
    return { inFlight, waiting, peak, lastCallAtMs: this.lastCallAtMs }
  }
}
