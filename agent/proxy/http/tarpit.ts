/** So many requests that cannot be understood are refused at once in a second; those above wait. */
const AT_ONCE_MAX = 50
const WINDOW_MS = 1_000
/** At least so long, at most twice that: spread, so that they do not all come back together. */
const HOLD_MS = 500

/**
 * Makes refusals slow while there are floods of them: peers that send garbage on many connections, each again as soon as it was
 * refused, would else take all of the front's time. What is held is a paused connection, and of these there is a limit.
 */
export class Tarpit {
  #beganAtMs = Number.NEGATIVE_INFINITY
  #refused = 0

  /** True: `refuse` is called later. False: refusals are rare, and it shall be called now. */
  holds(refuse: () => void, nowMs: number): boolean {
    if (nowMs - this.#beganAtMs >= WINDOW_MS) {
      this.#beganAtMs = nowMs
      this.#refused = 0
    }
    this.#refused += 1
    if (this.#refused <= AT_ONCE_MAX) return false
    setTimeout(refuse, HOLD_MS * (1 + Math.random())).unref()
    return true
  }
}
