import type { Outlet } from './outlet.ts'

/** How long after the peer's end of sending it is first looked whether it still listens; doubled each time. */
const FIRST_MS = 50

/**
 * Finds out whether a peer that has ended its side still waits for its answer: a program that has closed its socket and one
 * that only sends no more look the same, until something is sent to them. So the answer's first bytes, the same in every
 * answer, are sent one by one ahead of it, and while a streamed answer is silent zeros ahead of its next chunk's size: to a
 * closed socket the second of them fails, and the connection ends.
 */
export class PeerProbe {
  readonly #outlet: Outlet
  #timer: NodeJS.Timeout | undefined

  constructor(outlet: Outlet) {
    this.#outlet = outlet
  }

  start(): void {
    this.#next(FIRST_MS)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #next(ms: number): void {
    this.#timer = setTimeout(() => {
      if (this.#outlet.sendAhead()) this.#next(ms * 2)
    }, ms)
  }
}
