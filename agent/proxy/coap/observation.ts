import type { Body, Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { type Answer, CODE } from './answer.ts'
import { blockBytes, SZX_MAX } from './block.ts'
import type { BoundedMap } from './bounded-map.ts'
import { type CoapOption, TEXT_FORMAT, TYPE, uintOf, uintOption } from './codec.ts'
import type { Notification } from './endpoint.ts'
import { EventReader } from './event-reader.ts'
import type { Exchange } from './exchange.ts'
import type { ObservedPeer } from './observed-peer.ts'
import { OPTION } from './options.ts'
import type { Outcome, OutcomeListener } from './outbox.ts'
import type { CoapRequest } from './request.ts'

/** What an observation needs of the proxy around it. */
export interface ObservationHost {
  /** A large answer's first block; the others are kept. */
  sliced(exchange: Exchange, request: CoapRequest, answer: Answer): Answer
  /** As `Endpoint.respond`. */
  respond(exchange: Exchange, answer: Answer, onOutcome: OutcomeListener): boolean
  respondNothing(exchange: Exchange): void
  /** As `Endpoint.notify`. */
  notify(notified: ObservedPeer, notification: Notification, onOutcome: OutcomeListener): boolean
  /** `undefined`: none is free now. */
  messageId(notified: ObservedPeer): number | undefined
  /** How a stream that broke off is told. */
  failed(error: unknown, requestId: string): Answer
  /** It has ended; called once. */
  ended(observation: Observation): void
  readonly nowMs: () => number
  /** A notification in blocks holds up the next one until its last block has been fetched, or none has been for so long. */
  readonly blocksIdleMs: number
  readonly eventBytesMax: number
  /** The newest events that need several blocks, by observation: there may be very many. */
  readonly events: BoundedMap<Answer>
}

/** A message to a client that registered with one that is not confirmable is, each so many of them, or after so long. */
const UNCONFIRMED_MAX = 15
const UNCONFIRMED_MS = 300_000
const NO_ID_MS = 1_000

const NOTHING = Buffer.alloc(0)
/** What an event takes beside its payload. */
const EVENT_BYTES = 512
/** The end of a stream: neither an event, nor an error, nor the option Observe. */
const END: Answer = { code: CODE.content, options: [], payload: NOTHING }

/**
 * One client's observation of one function (RFC 7641): each server-sent event of the function's answer is a notification.
 *
 * ```
 *  calling --an ordinary answer--------------------------------------> over
 *     \--an event stream--> following --its end, an error, our stop--> over   (told by a message without Observe)
 *                               \--Reset, deregistration, no ACK----> over   (the call is cancelled)
 * ```
 *
 * Nothing more is read of the stream until the client may get the next notification; so the function waits, as it does for a
 * slow reader over HTTP. A client that registered by a confirmable message is notified by such: each is sent again until it is
 * acknowledged, then comes the next. Others get one per round trip that need not be acknowledged, and now and then one that must be.
 */
export class Observation {
  readonly exchange: Exchange
  readonly notified: ObservedPeer
  readonly key: string
  readonly transfer: string
  /** Counted among those that there may be. */
  following = false
  readonly #host: ObservationHost
  readonly #request: CoapRequest
  readonly #confirmable: boolean
  #options: readonly CoapOption[] = []
  #sequence = Math.floor(Date.now() / 8) & 0xff_ffff
  /** The registration has its answer. */
  #begun = false
  #over = false
  /** The newest event; `undefined` when it needs several blocks, which are elsewhere. */
  #last: Answer | undefined = END
  #body: Body = NOTHING
  /** Ids of messages that were not confirmable, since one was acknowledged. */
  #unconfirmed: number[] = []
  #acknowledgedMs: number
  /** Ends what is being waited for. */
  #wake: (() => void) | undefined
  /** The newest notification does not wait for its last block. */
  #whole = true
  #blocksTimer: NodeJS.Timeout | undefined

  constructor(
    host: ObservationHost,
    notified: ObservedPeer,
    exchange: Exchange,
    request: CoapRequest,
    names: { readonly key: string; readonly transfer: string },
  ) {
    this.#host = host
    this.notified = notified
    this.exchange = exchange
    this.#request = request
    this.key = names.key
    this.transfer = names.transfer
    this.#confirmable = exchange.message.type === TYPE.con
    this.#acknowledgedMs = host.nowMs()
  }

  /** There is something that a new registration can be told at once. */
  get begun(): boolean {
    return this.#begun && !this.#over
  }

  /** The newest event; `undefined` when others needed its memory. */
  get last(): Answer | undefined {
    return this.#last ?? this.#host.events.get(this.key)
  }

  /** The newest event as a notification of its own, for a client that registers again. */
  renew(event: Answer): Answer {
    return this.#observed(event)
  }

  /** The function's answer is an event stream: follows it to its end. Never throws. */
  async follow(result: Result, requestId: string): Promise<void> {
    this.#options = optionsOf(result, this.#request.accept)
    this.#body = result.body
    try {
      await this.#read(result.body)
      await this.#finish(END)
    } catch (error) {
      await this.#finish(this.#ended ? END : this.#host.failed(error, requestId))
    }
  }

  /** The client does not want it any more: cancels the call. */
  leave(fault: Fault): void {
    this.#end()
    this.exchange.caller.leave(fault)
  }

  /** We stop: cancels the call, and says so at once. */
  stop(fault: Fault, answer: Answer): void {
    if (this.#begun && !this.#over) {
      const messageId = this.#host.messageId(this.notified) ?? this.exchange.message.messageId
      const { token } = this.exchange.message
      const notification = { token, messageId, answer, confirmable: false }
      this.#host.notify(this.notified, notification, ignore)
    }
    this.leave(fault)
  }

  /** It was none: the function gave an ordinary answer, or failed. */
  dismiss(): void {
    if (!this.following) this.#end()
  }

  /** Whether a message of ours that was not confirmable had this id. */
  sent(messageId: number): boolean {
    return this.#unconfirmed.includes(messageId)
  }

  /** A block of the newest notification has been fetched. */
  fetched(more: boolean): void {
    if (more) this.#blocksTimer?.refresh()
    else {
      this.#whole = true
      if (this.#blocksTimer !== undefined) this.#wake?.()
    }
  }

  get #ended(): boolean {
    return this.#over || this.exchange.caller.aborted
  }

  async #read(body: Body): Promise<void> {
    const reader = new EventReader(this.#host.eventBytesMax)
    const chunks: Iterable<Buffer> | AsyncIterable<Buffer> = Buffer.isBuffer(body) ? [body] : body
    // Leaving the loop destroys the stream, and that cancels the call.
    for await (const chunk of chunks) {
      for (const payload of reader.push(chunk)) {
        await this.#event({ code: CODE.content, options: this.#options, payload })
        if (!this.#whole) await this.#blocksFetched()
        if (this.#ended) return
      }
    }
  }

  async #event(event: Answer): Promise<void> {
    await this.notified.turn()
    try {
      if (this.#ended) return
      this.#keep(event)
      const answer = this.#host.sliced(this.exchange, this.#request, this.#observed(event))
      this.#whole = !isInBlocks(answer)
      if (this.#begun) await this.#notify(answer, this.#mustConfirm(), this.notified.roundTripMs)
      else await this.#respond(answer)
    } finally {
      this.notified.done()
    }
  }

  /** For a client that registers again, or leaves. */
  #keep(event: Answer): void {
    const { events } = this.#host
    const { length } = event.payload
    const short = length <= blockBytes(SZX_MAX)
    this.#last = short ? event : undefined
    if (short) events.delete(this.key)
    else events.set(this.key, this.notified.peer.address, event, length + EVENT_BYTES)
  }

  /** Tells the end, unless it was the client who ended it. */
  async #finish(answer: Answer): Promise<void> {
    await this.notified.turn()
    try {
      if (this.#ended) this.#host.respondNothing(this.exchange)
      else if (this.#begun) await this.#notify(answer, true, 0)
      else await this.#respond(answer)
    } finally {
      this.notified.done()
      this.#end()
    }
  }

  /** The answer to the registration itself. */
  async #respond(answer: Answer): Promise<void> {
    this.#begun = true
    if (this.#confirmable) {
      await this.#settled((settle) => this.#host.respond(this.exchange, answer, settle))
    } else {
      // It needs an id that is known here, to recognise a Reset.
      this.#host.respondNothing(this.exchange)
      await this.#notify(answer, false, 0)
    }
  }

  /** @param pauseMs - Before the next, when this one need not be acknowledged. */
  async #notify(answer: Answer, confirmable: boolean, pauseMs: number): Promise<void> {
    let messageId = this.#host.messageId(this.notified)
    while (messageId === undefined) {
      await this.#pause(NO_ID_MS)
      if (this.#ended) return
      messageId = this.#host.messageId(this.notified)
    }
    const { token } = this.exchange.message
    const notification = { token, messageId, answer, confirmable }
    const waited = await this.#settled((settle) =>
      this.#host.notify(this.notified, notification, settle),
    )
    if (waited || this.#ended) return
    this.#unconfirmed.push(messageId)
    if (this.#unconfirmed.length > UNCONFIRMED_MAX) this.#unconfirmed.shift()
    if (pauseMs > 0) await this.#pause(pauseMs)
  }

  /** Whether a message that is not the answer to the registration has to be acknowledged. */
  #mustConfirm(): boolean {
    return (
      this.#confirmable ||
      // Also because nobody has shown yet that the address is his.
      !this.notified.measured ||
      this.#unconfirmed.length >= UNCONFIRMED_MAX ||
      this.#host.nowMs() - this.#acknowledgedMs >= UNCONFIRMED_MS
    )
  }

  /** @returns whether there was anything to wait for */
  async #settled(send: (settle: OutcomeListener) => boolean): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const waits = send((outcome) => {
      this.#onOutcome(outcome)
      resolve()
    })
    if (waits && !this.#over) await promise
    this.#wake = undefined
    return waits
  }

  #onOutcome(outcome: Outcome): void {
    if (outcome.kind !== 'acknowledged') {
      return this.leave(new Fault('CALLER_GONE', 'the observer has gone'))
    }
    this.#unconfirmed = []
    this.#acknowledgedMs = this.#host.nowMs()
    if (outcome.roundTripMs !== undefined) this.notified.measure(outcome.roundTripMs)
  }

  async #blocksFetched(): Promise<void> {
    if (this.#ended) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    this.#blocksTimer = setTimeout(resolve, this.#host.blocksIdleMs)
    await promise
    clearTimeout(this.#blocksTimer)
    this.#blocksTimer = undefined
    this.#wake = undefined
    this.#whole = true
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const timer = setTimeout(resolve, ms)
    await promise
    clearTimeout(timer)
    this.#wake = undefined
  }

  #observed(event: Answer): Answer {
    this.#sequence = (this.#sequence + 1) & 0xff_ffff
    return { ...event, options: [...event.options, uintOption(OPTION.observe, this.#sequence)] }
  }

  #end(): void {
    if (this.#over) return
    this.#over = true
    this.#host.events.delete(this.key)
    this.#host.ended(this)
    if (!Buffer.isBuffer(this.#body)) this.#body.destroy()
    this.#wake?.()
  }
}

/** Whether a function's answer can be observed. */
export function isEventStream({ status, headers }: Result): boolean {
  if (status !== 200) return false
  const type = headerOf(headers, 'content-type') ?? ''
  return /^text\/event-stream *(?:;|$)/i.test(type)
}

/** All notifications have the same Content-Format (RFC 7641 section 4.2): what is asked for, else text. */
function optionsOf({ headers }: Result, accept: number | undefined): readonly CoapOption[] {
  const format = accept === undefined ? TEXT_FORMAT : uintOption(OPTION.contentFormat, accept)
  // `no-cache`, which event streams usually have, is left out: an observer would register again and again.
  const seconds = /\bmax-age=([1-9]\d{0,8})\b/.exec(headerOf(headers, 'cache-control') ?? '')?.[1]
  return seconds === undefined ? [format] : [format, uintOption(OPTION.maxAge, Number(seconds))]
}

function headerOf(headers: readonly string[], name: string): string | undefined {
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (headers[at] === name) return headers[at + 1]
  }
  return undefined
}

/** Whether more blocks follow. */
export function isInBlocks({ options }: Answer): boolean {
  const block2 = options.find(({ number }) => number === OPTION.block2)
  return block2 !== undefined && (uintOf(block2.value) & 8) !== 0
}

function ignore(): void {}
