import type { Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Answer } from './answer.ts'
import { BoundedMap } from './bounded-map.ts'
import type { Exchange } from './exchange.ts'
import { EXCHANGE_LIFETIME_MS } from './endpoint.ts'
import type { Limits } from './limits.ts'
import { Observation, type ObservationHost } from './observation.ts'
import { ObservedPeer } from './observed-peer.ts'
import { type Peer, peerKey } from './peer.ts'
import { type CoapRequest, transferOf } from './request.ts'

export interface ObserversOptions extends Omit<
  ObservationHost,
  'ended' | 'messageId' | 'eventBytesMax' | 'events'
> {
  readonly limits: Limits
  /** Whether a message with this id has come from the peer lately: we may have answered it with its own. */
  readonly remembers: (peer: Peer, messageId: number) => boolean
}

/** Peers whose message ids are remembered after their last observation. */
const PEERS_LEFT_MAX = 4_096
const RETRY_AFTER_MS = 10_000

/** All observations, by peer and token. */
export class Observers {
  readonly #options: ObserversOptions
  readonly #host: ObservationHost
  readonly #all = new Map<string, Observation>()
  readonly #peers = new Map<string, ObservedPeer>()
  readonly #byAddress = new Map<string, number>()
  #following = 0
  #onIdle: (() => void) | undefined

  constructor(options: ObserversOptions) {
    this.#options = options
    this.#host = {
      ...options,
      eventBytesMax: options.limits.eventBytesMax,
      events: new BoundedMap({
        entriesMax: options.limits.observersMax,
        bytesMax: options.limits.eventsBytesMax,
        lifetimeMs: Number.POSITIVE_INFINITY,
        nowMs: options.nowMs,
      }),
      messageId: (notified) => this.#messageId(notified),
      ended: (observation) => this.#ended(observation),
    }
  }

  /** Event streams that are followed. */
  get size(): number {
    return this.#following
  }

  /** The observation that this request registered before, or wants to end. */
  find(exchange: Exchange): Observation | undefined {
    return this.#all.size === 0 ? undefined : this.#all.get(keyOf(exchange))
  }

  /** A function is called for a registration; in place of an earlier one with the same token. */
  open(exchange: Exchange, request: CoapRequest): Observation {
    const key = keyOf(exchange)
    this.#all.get(key)?.leave(new Fault('CALLER_GONE', 'the client observes something else'))
    const notified = this.#peer(exchange.peer)
    const names = { key, transfer: transferOf(request) }
    const observation = new Observation(this.#host, notified, exchange, request, names)
    notified.observations.add(observation)
    this.#all.set(key, observation)
    return observation
  }

  /**
   * The function answers with an event stream. Resolves when the observation is over; never rejects.
   *
   * @throws Fault `FUNCTION_SATURATED` when there are as many observations as there may be
   */
  follow(observation: Observation, result: Result, requestId: string): Promise<void> {
    const { observersMax, observersPerAddressMax } = this.#options.limits
    const { address } = observation.exchange.peer
    const ofAddress = this.#byAddress.get(address) ?? 0
    if (this.#following >= observersMax || ofAddress >= observersPerAddressMax) {
      if (!Buffer.isBuffer(result.body)) result.body.destroy()
      const details = { retryAfterMs: RETRY_AFTER_MS }
      throw new Fault('FUNCTION_SATURATED', 'this node has too many observers', details)
    }
    this.#following++
    this.#byAddress.set(address, ofAddress + 1)
    observation.following = true
    return observation.follow(result, requestId)
  }

  /** A peer does not know a message of ours. */
  reset(peer: Peer, messageId: number): void {
    for (const observation of this.#observationsOf(peer)) {
      if (!observation.sent(messageId)) continue
      observation.leave(new Fault('CALLER_GONE', 'the observer has gone'))
    }
  }

  /** A block of an answer has been fetched; its last one when there are no more. */
  fetched(peer: Peer, transfer: string, more: boolean): void {
    for (const observation of this.#observationsOf(peer)) {
      if (observation.transfer === transfer) observation.fetched(more)
    }
  }

  /** The id of a response of its own; see `EndpointOptions.responseId`. */
  responseId(peer: Peer, requestId: number): number {
    if (this.#peers.size === 0) return requestId
    const notified = this.#peers.get(peerKey(peer))
    return (notified && this.#messageId(notified)) ?? requestId
  }

  /** Resolves when no event stream is followed. */
  async idle(): Promise<void> {
    if (this.#following === 0) return
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
  }

  stop(fault: Fault, answer: Answer): void {
    for (const observation of this.#all.values()) {
      if (observation.following) observation.stop(fault, answer)
    }
  }

  /** Forgets peers whose ids may be used again. */
  sweep(): void {
    const beforeMs = this.#options.nowMs() - EXCHANGE_LIFETIME_MS
    for (const [key, { observations, leftMs }] of this.#peers) {
      if (observations.size === 0 && leftMs <= beforeMs) this.#peers.delete(key)
    }
  }

  #observationsOf(peer: Peer): Iterable<Observation> {
    return (this.#all.size > 0 && this.#peers.get(peerKey(peer))?.observations) || []
  }

  #peer(peer: Peer): ObservedPeer {
    const key = peerKey(peer)
    const known = this.#peers.get(key)
    if (known !== undefined) return known
    const made = new ObservedPeer(peer)
    this.#peers.set(key, made)
    return made
  }

  #messageId({ peer, ids }: ObservedPeer): number | undefined {
    const { nowMs, remembers } = this.#options
    return ids.take(nowMs(), (id) => remembers(peer, id))
  }

  #ended(observation: Observation): void {
    const { key, notified, exchange, following } = observation
    if (this.#all.get(key) === observation) this.#all.delete(key)
    notified.observations.delete(observation)
    if (notified.observations.size === 0) this.#left(notified)
    if (!following) return
    const { address } = exchange.peer
    const left = (this.#byAddress.get(address) ?? 1) - 1
    if (left === 0) this.#byAddress.delete(address)
    else this.#byAddress.set(address, left)
    this.#following--
    if (this.#following === 0) this.#onIdle?.()
  }

  /** Nothing is observed by this peer any more. */
  #left(notified: ObservedPeer): void {
    notified.leftMs = this.#options.nowMs()
    if (!notified.ids.used) this.#peers.delete(peerKey(notified.peer))
    if (this.#peers.size <= PEERS_LEFT_MAX) return
    for (const [key, { observations }] of this.#peers) {
      if (observations.size > 0) continue
      this.#peers.delete(key)
      return
    }
  }
}

function keyOf({ peer, message }: Exchange): string {
  return `${peerKey(peer)} ${message.token.toString('hex')}`
}
