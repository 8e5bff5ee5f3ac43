import type { Outlet } from './outlet.ts'

/** How long after the peer's end of sending it is first looked whether it still listens; doubled each time. */
const FIRST_MS = 50
/** A peer that is not read from is asked for the first time after this long, and then so seldom that the few bytes last a minute. */
const DEAF_MS = 2_000

/**
 * Finds out whether a peer that has ended its side still waits for its answer: a program that has closed its socket and one
 * that only sends no more look the same, until something is sent to them. So the answer's first bytes, the same in every
 * answer, are sent one by one ahead of it, and while a streamed answer is silent zeros ahead of its next chunk's size: to a
 * closed socket the second of them fails, and the connection ends.
 */
export class PeerProbe {
  readonly #outlet: Outlet
  #timer: NodeJS.Timeout | undefined
  #bytes = -1
  #deafSinceMs = 0
  #dueAtMs = 0

  constructor(outlet: Outlet) {
    this.#outlet = outlet
  }

  start(): void {
    this.#next(FIRST_MS)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  /**
   * To be called now and then: asks a peer whose end would not be seen, even a reset, because nothing is read from it.
   *
   * @param deaf - so it is, and it waits for its answer
   * @param bytes - read from it in all: while there are more of them it is there
   */
  look(deaf: boolean, bytes: number, nowMs: number): void {
    if (!deaf || bytes !== this.#bytes) {
      this.#bytes = bytes
      this.#deafSinceMs = nowMs
      this.#dueAtMs = nowMs + DEAF_MS
    } else if (nowMs >= this.#dueAtMs) {
      this.#dueAtMs = nowMs + Math.max(DEAF_MS, (nowMs - this.#deafSinceMs) / 2)
      this.#outlet.sendAhead()
    }
  }

  #next(ms: number): void {
    this.#timer = setTimeout(() => {
      if (this.#outlet.sendAhead()) this.#next(ms * 2)
    }, ms)
  }
}
