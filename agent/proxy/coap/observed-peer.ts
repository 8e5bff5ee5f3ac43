import { MessageIds } from './message-ids.ts'
import type { Observation } from './observation.ts'
import type { Peer } from './peer.ts'

/** RFC 7641 section 4.5.1: while the round-trip time is unknown. */
const ROUND_TRIP_UNKNOWN_MS = 3_000

/**
 * What all observations of one peer share: its message ids, its round-trip time, and the turn to send. One notification at a time is
 * under way to a peer (NSTART of RFC 7252 section 4.7).
 */
export class ObservedPeer {
  readonly peer: Peer
  readonly ids = new MessageIds()
  /** Observations, and requests that may become one. */
  readonly observations = new Set<Observation>()
  /** When the last one ended; its message ids must not be used again for a while. */
  leftMs = 0
  #roundTripMs: number | undefined
  #busy = false
  readonly #waiting: (() => void)[] = []

  constructor(peer: Peer) {
    this.peer = peer
  }

  get measured(): boolean {
    return this.#roundTripMs !== undefined
  }

  get roundTripMs(): number {
    return this.#roundTripMs ?? ROUND_TRIP_UNKNOWN_MS
  }

  /** Smoothed as in RFC 6298. */
  measure(roundTripMs: number): void {
    const before = this.#roundTripMs ?? roundTripMs
    this.#roundTripMs = before + (roundTripMs - before) / 8
  }

  /** Resolves when nothing else is under way; `done` must follow. */
  async turn(): Promise<void> {
    if (this.#busy) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#busy = true
  }

  done(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#busy = false
    else next()
  }
}
