import { Fault } from '#shared/fault.ts'
import type { ProxyLog } from '../log.ts'
import type { Answer } from './answer.ts'
import { type CoapMessage, encodeEmpty, encodeMessage, parseMessage, TYPE } from './codec.ts'
import { Exchange, ExchangeList } from './exchange.ts'
import { ExchangeTable } from './exchange-table.ts'
import { KnownOptions } from './known-options.ts'
import { Outbox, type OutcomeListener } from './outbox.ts'
import { type Peer, peerKey } from './peer.ts'
import { UdpPort } from './udp-port.ts'

export interface EndpointOptions {
  readonly reusePort: boolean
  readonly log: ProxyLog
  readonly onRequest: (exchange: Exchange) => void
  /** The peer does not know what one of our messages, that is not confirmable, belongs to. */
  readonly onReset: (peer: Peer, messageId: number) => void
  /** The message id of a response of its own: the request's, unless we send this peer messages with ids of our choice. */
  readonly responseId: (peer: Peer, requestId: number) => number
  readonly nowMs: () => number
  /** A response that takes longer gets an empty ACK first. */
  readonly ackDelayMs: number
  readonly ackTimeoutMs: number
  readonly dedupEntriesMax: number
  readonly dedupBytesMax: number
}

export interface EndpointStats {
  /** Requests that are being worked on. */
  readonly inFlight: number
  /** Responses that wait for their ACK. */
  readonly unacknowledged: number
  readonly dedupEntries: number
  readonly dedupBytes: number
  readonly duplicates: number
  /** Requests that were forgotten before a duplicate became impossible: one that still comes runs its function again. */
  readonly dedupEvicted: number
  /** Datagrams that are not CoAP, or not worth an answer. */
  readonly ignored: number
  /** Datagrams that were not sent because the socket's queue was full, or it did not take them. */
  readonly unsent: number
}

/** A message that no request is waiting for. */
export interface Notification {
  readonly token: Buffer
  readonly messageId: number
  readonly answer: Answer
  readonly confirmable: boolean
}

/** EXCHANGE_LIFETIME with the RFC's defaults (RFC 7252 section 4.8.2): how long a message id must not be re-used. */
export const EXCHANGE_LIFETIME_MS = 247_000
/** How often delayed ACKs are looked for, so that no call needs a timer of its own. */
const ACK_CHECK_MS = 50

const NOTHING = Buffer.alloc(0)
/** In place of an answer: a request that has no response to repeat. */
const SILENT = NOTHING

/**
 * The message layer (RFC 7252 section 4): message format, types, de-duplication, acknowledgement, retransmission.
 *
 * ```
 *  CON -> working --response within ackDelayMs--> ACK with the response; kept to answer duplicates
 *            |
 *            +--later--> empty ACK --response--> CON of its own, sent again until ACK or Reset
 *  NON -> working --response--> NON
 * ```
 *
 * A response of its own carries the request's message id: ids only have to be unique per sender, and the peer already
 * made sure that it does not use one twice within the lifetime, so we need no state to do the same. Only for peers that observe
 * something ids are chosen (`responseId`).
 */
export class Endpoint {
  readonly #options: EndpointOptions
  #udp!: UdpPort
  readonly #outbox: Outbox
  /** Requests, and what their duplicates are answered with once they are done. */
  readonly #seen: ExchangeTable<Exchange>
  readonly #working = new ExchangeList()
  readonly #knownOptions = new KnownOptions()
  /** While requests are being worked on: an endpoint that has nothing to do does not wake its process. */
  #ackTimer: NodeJS.Timeout | undefined
  #onIdle: (() => void) | undefined
  #duplicates = 0
  #ignored = 0
  #unsent = 0
  /** As of the last datagram, or the last look at what is being worked on: the tables of one message are asked with one time. */
  #nowMs: number

  private constructor(options: EndpointOptions) {
    this.#options = options
    this.#nowMs = options.nowMs()
    this.#outbox = new Outbox({
      send: (datagram, peer) => this.#send(datagram, peer),
      ackTimeoutMs: options.ackTimeoutMs,
      entriesMax: 4096,
      bytesMax: 8 * 1024 * 1024,
      nowMs: options.nowMs,
    })
    this.#seen = new ExchangeTable({
      entriesMax: options.dedupEntriesMax,
      entriesPerAddressMax: Math.ceil(options.dedupEntriesMax / 2),
      bytesMax: options.dedupBytesMax,
      lifetimeMs: EXCHANGE_LIFETIME_MS,
      nowMs: () => this.#nowMs,
    })
  }

  static async bind(options: EndpointOptions, host: string, port: number): Promise<Endpoint> {
    const { log, reusePort } = options
    const endpoint = new Endpoint(options)
    const onDatagram = (datagram: Buffer, from: Peer): void => endpoint.#receive(datagram, from)
    endpoint.#udp = await UdpPort.bind({ host, port, log, reusePort, onDatagram })
    return endpoint
  }

  get port(): number {
    return this.#udp.port
  }

  get stats(): EndpointStats {
    return {
      inFlight: this.#working.size,
      unacknowledged: this.#outbox.size,
      dedupEntries: this.#seen.size,
      dedupBytes: this.#seen.bytes,
      duplicates: this.#duplicates,
      dedupEvicted: this.#seen.evicted,
      ignored: this.#ignored,
      unsent: this.#unsent,
    }
  }

  /** Requests that are being worked on. */
  get inFlight(): number {
    return this.#working.size
  }

  /**
   * Sends the response; only the first of an exchange.
   *
   * @param onOutcome - What becomes of a response that has to be acknowledged.
   * @returns whether `onOutcome` is going to be called
   */
  respond(exchange: Exchange, answer: Answer, onOutcome?: OutcomeListener): boolean {
    const { message, peer } = exchange
    if (!this.#finish(exchange)) return false
    const { token, messageId } = message
    const { code, options, payload } = answer
    if (message.type === TYPE.con && exchange.separate) {
      this.#seen.done(exchange.row, encodeEmpty(TYPE.ack, messageId))
      const ownId = this.#options.responseId(peer, messageId)
      return this.notify(peer, { token, messageId: ownId, answer, confirmable: true }, onOutcome)
    }
    if (message.type === TYPE.con) {
      const ack = { type: TYPE.ack, code, messageId, token, options, payload }
      const datagram = encodeMessage(ack)
      this.#seen.done(exchange.row, datagram)
      this.#send(datagram, peer)
      return false
    }
    this.#seen.done(exchange.row, SILENT)
    const ownId = this.#options.responseId(peer, messageId)
    return this.notify(peer, { token, messageId: ownId, answer, confirmable: false })
  }

  /**
   * Sends a message of ours that belongs to a request of before.
   *
   * @param onOutcome - What becomes of a confirmable one.
   * @returns false when it is not sent as confirmable, because too many wait for their acknowledgement; `onOutcome` is not called then
   */
  notify(peer: Peer, notification: Notification, onOutcome?: OutcomeListener): boolean {
    const { token, messageId, answer, confirmable } = notification
    const { code, options, payload } = answer
    const datagram = encodeMessage({ type: TYPE.con, code, messageId, token, options, payload })
    if (confirmable && this.#outbox.fits(datagram.length)) {
      this.#outbox.add(outboxKey(peer, messageId), datagram, peer, onOutcome)
      return true
    }
    datagram[0] = (datagram[0] ?? 0) | (TYPE.non << 4)
    this.#send(datagram, peer)
    return false
  }

  /** A message with this id has come from the peer, and is remembered. */
  remembers(peer: Peer, messageId: number): boolean {
    return this.#seen.find(peer.address, peer.port, messageId) >= 0
  }

  /** Ends the exchange without a response, because the caller asked for none. */
  respondNothing(exchange: Exchange): void {
    if (!this.#finish(exchange)) return
    const confirmable = exchange.message.type === TYPE.con
    const ack = encodeEmpty(TYPE.ack, exchange.message.messageId)
    this.#seen.done(exchange.row, confirmable ? ack : SILENT)
    if (confirmable && !exchange.separate) this.#send(ack, exchange.peer)
  }

  /** Ends the exchange with a Reset: the message could not be processed (RFC 7252 section 4.3). */
  reject(exchange: Exchange): void {
    if (!this.#finish(exchange)) return
    this.#seen.done(exchange.row, SILENT)
    this.#send(encodeEmpty(TYPE.rst, exchange.message.messageId), exchange.peer)
  }

  sweep(): void {
    this.#nowMs = this.#options.nowMs()
    this.#seen.sweep()
  }

  /** Resolves when no request is being worked on. */
  async idle(): Promise<void> {
    if (this.#working.size === 0) return
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
  }

  /** Cancels what is being worked on, with `last` as its answer; afterwards nothing is sent or received. */
  async close(last?: Answer): Promise<void> {
    if (last !== undefined) {
      for (const exchange of this.#working) {
        this.respond(exchange, last)
        exchange.caller.leave(gone())
      }
    }
    clearInterval(this.#ackTimer)
    this.#outbox.clear()
    await this.#udp.close()
  }

  #receive(datagram: Buffer, from: Peer): void {
    this.#nowMs = this.#options.nowMs()
    // Port 0 means that the sender wants no answer (RFC 768), and the socket throws when it is given one.
    const message = from.port === 0 ? 'ignore' : parseMessage(datagram, this.#knownOptions)
    if (message === 'ignore') {
      this.#ignored++
      return
    }
    if ('malformed' in message) return this.#send(encodeEmpty(TYPE.rst, message.malformed), from)
    const { type, code, messageId } = message
    if (type === TYPE.ack || type === TYPE.rst) {
      if (code === 0) this.#settle(from, messageId, type === TYPE.rst)
      else this.#ignored++
    } else if (code > 0 && code < 0x20) {
      this.#request(message, from)
    } else if (type === TYPE.con) {
      // A ping (RFC 7252 section 4.3), or a response to a request that we never made.
      this.#send(encodeEmpty(TYPE.rst, messageId), from)
    } else {
      this.#ignored++
    }
  }

  #request(message: CoapMessage, from: Peer): void {
    const { address, port } = from
    const { messageId } = message
    const row = this.#seen.find(address, port, messageId)
    if (row >= 0) return this.#repeat(row, messageId, from)
    const exchange = new Exchange(from, message, this.#nowMs)
    exchange.row = this.#seen.add(address, port, messageId, exchange)
    this.#working.push(exchange)
    this.#ackTimer ??= setInterval(() => this.#acknowledgeLate(), ACK_CHECK_MS).unref()
    this.#options.onRequest(exchange)
  }

  #repeat(row: number, messageId: number, from: Peer): void {
    this.#duplicates++
    const working = this.#seen.workOf(row)
    if (working !== undefined) {
      if (working.separate) this.#send(encodeEmpty(TYPE.ack, messageId), from)
      return
    }
    const kept = this.#seen.answerOf(row)
    if (kept.length > 0) this.#send(kept, from)
  }

  #settle(peer: Peer, messageId: number, reset: boolean): void {
    if (this.#outbox.size > 0) {
      this.#outbox.settle(outboxKey(peer, messageId), reset ? 'reset' : 'acknowledged')
    }
    if (!reset) return
    this.#options.onReset(peer, messageId)
    // The caller does not know this exchange any more: after an empty ACK it may still be working.
    const row = this.#seen.find(peer.address, peer.port, messageId)
    if (row >= 0) this.#seen.workOf(row)?.caller.leave(gone())
  }

  #acknowledgeLate(): void {
    if (this.#working.size === 0) {
      clearInterval(this.#ackTimer)
      this.#ackTimer = undefined
      return
    }
    this.#nowMs = this.#options.nowMs()
    const late = this.#nowMs - this.#options.ackDelayMs
    for (const exchange of this.#working) {
      if (exchange.startedMs > late) return // The list is in the order of arrival.
      if (exchange.separate || exchange.message.type !== TYPE.con) continue
      exchange.separate = true
      this.#send(encodeEmpty(TYPE.ack, exchange.message.messageId), exchange.peer)
    }
  }

  /** False when it is done already. */
  #finish(exchange: Exchange): boolean {
    if (exchange.done) return false
    exchange.done = true
    this.#working.remove(exchange)
    if (this.#working.size === 0) this.#onIdle?.()
    return true
  }

  #send(datagram: Buffer, peer: Peer): void {
    if (!this.#udp.send(datagram, peer)) this.#unsent++
  }
}

const outboxKey = (peer: Peer, messageId: number): string => `${peerKey(peer)} ${messageId}`

function gone(): Fault {
  return new Fault('CALLER_GONE', 'the caller has gone')
}
