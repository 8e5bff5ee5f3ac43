import { Caller } from '../caller.ts'
import type { CoapMessage } from './codec.ts'
import type { Peer } from './peer.ts'

/** One request, from its datagram to its response. */
export class Exchange {
  readonly peer: Peer
  readonly message: CoapMessage
  readonly startedMs: number
  /** Leaves when nobody waits for the response any more. */
  readonly caller = new Caller()
  /** Where the request is remembered. */
  row = -1
  /** An empty ACK has been sent: the response will be a message of its own. */
  separate = false
  /** It has its response, or shall get none. */
  done = false
  /** In the list of those that are worked on. */
  previous: Exchange | undefined
  next: Exchange | undefined

  constructor(peer: Peer, message: CoapMessage, startedMs: number) {
    this.peer = peer
    this.message = message
    this.startedMs = startedMs
  }
}

/** Exchanges in the order of their arrival; one that leaves costs nothing, and nothing is allocated. */
export class ExchangeList {
  size = 0
  #first: Exchange | undefined
  #last: Exchange | undefined

  push(exchange: Exchange): void {
    exchange.previous = this.#last
    if (this.#last === undefined) this.#first = exchange
    else this.#last.next = exchange
    this.#last = exchange
    this.size++
  }

  /** Only of one that is in the list. */
  remove(exchange: Exchange): void {
    const { previous, next } = exchange
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next === undefined) this.#last = previous
    else next.previous = previous
    exchange.previous = exchange.next = undefined
    this.size--
  }

  /** @yields oldest first; the one that was given last may be removed meanwhile */
  *[Symbol.iterator](): Generator<Exchange> {
    let exchange = this.#first
    while (exchange !== undefined) {
      const { next } = exchange
      yield exchange
      exchange = next
    }
  }
}
