import { owned } from './owned.ts'
import type { Peer } from './peer.ts'

/** `roundTripMs` only where it is known which of several sendings was acknowledged: the only one (Karn). */
export type Outcome =
  | { readonly kind: 'acknowledged'; readonly roundTripMs: number | undefined }
  | { readonly kind: 'reset' }
  | { readonly kind: 'lost' }

export type OutcomeListener = (outcome: Outcome) => void

interface Waiting {
  readonly datagram: Buffer
  readonly peer: Peer
  readonly sentMs: number
  readonly onOutcome: OutcomeListener | undefined
  sent: number
  timeoutMs: number
  timer: NodeJS.Timeout
}

export interface OutboxOptions {
  readonly send: (datagram: Buffer, peer: Peer) => void
  /** ACK_TIMEOUT, RFC 7252 section 4.8: 2,000. */
  readonly ackTimeoutMs: number
  readonly entriesMax: number
  readonly bytesMax: number
  /** Rising, from any start. */
  readonly nowMs: () => number
}

/** ACK_RANDOM_FACTOR and MAX_RETRANSMIT, RFC 7252 section 4.8. */
const RANDOM_FACTOR = 1.5
const RETRANSMIT_MAX = 4

/** Confirmable messages of ours that wait for their acknowledgement: sent again until it comes (RFC 7252 section 4.2). */
export class Outbox {
  readonly #options: OutboxOptions
  readonly #waiting = new Map<string, Waiting>()
  #bytes = 0

  constructor(options: OutboxOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#waiting.size
  }

  /** False: one more could not be remembered; it should then be sent unconfirmed. */
  fits(datagramBytes: number): boolean {
    const { entriesMax, bytesMax } = this.#options
    return this.#waiting.size < entriesMax && this.#bytes + datagramBytes <= bytesMax
  }

  /**
   * @param key - Peer and message id.
   * @param onOutcome - Called once, unless `clear` comes first.
   */
  add(key: string, message: Buffer, peer: Peer, onOutcome?: OutcomeListener): void {
    const datagram = owned(message)
    this.#take(key)
    const timeoutMs = this.#options.ackTimeoutMs * (1 + Math.random() * (RANDOM_FACTOR - 1))
    const timer = setTimeout(() => this.#onTimeout(key), timeoutMs)
    const sentMs = this.#options.nowMs()
    this.#waiting.set(key, { datagram, peer, sentMs, onOutcome, sent: 1, timeoutMs, timer })
    this.#bytes += datagram.length
    this.#options.send(datagram, peer)
  }

  /** An ACK or a Reset has come. */
  settle(key: string, kind: 'acknowledged' | 'reset'): void {
    const waiting = this.#take(key)
    if (waiting?.onOutcome === undefined) return
    const roundTripMs = waiting.sent > 1 ? undefined : this.#options.nowMs() - waiting.sentMs
    waiting.onOutcome(kind === 'reset' ? { kind } : { kind, roundTripMs })
  }

  clear(): void {
    for (const key of this.#waiting.keys()) this.#take(key)
  }

  #take(key: string): Waiting | undefined {
    const waiting = this.#waiting.get(key)
    if (waiting === undefined) return undefined
    clearTimeout(waiting.timer)
    this.#waiting.delete(key)
    this.#bytes -= waiting.datagram.length
    return waiting
  }

  #onTimeout(key: string): void {
    const waiting = this.#waiting.get(key)
    if (waiting === undefined) return
    if (waiting.sent > RETRANSMIT_MAX) {
      this.#take(key)
      waiting.onOutcome?.({ kind: 'lost' })
      return
    }
    waiting.sent++
    waiting.timeoutMs *= 2
    waiting.timer = setTimeout(() => this.#onTimeout(key), waiting.timeoutMs)
    this.#options.send(waiting.datagram, waiting.peer)
  }
}
