import { LinkedList } from '#shared/linked-list.ts'
import { Fault } from '#shared/fault.ts'
import type { Reason } from '#shared/schemas/health.ts'
import { CANCEL } from '../frames/index.ts'
import type { RunnerLink } from '../link/index.ts'
import type { CallerSignal, Invocation, Result } from '../model.ts'
import { Attachment, leastLoaded } from './attachment.ts'
import { Call, OVERRUN_MS } from './call.ts'
import type { CallLane } from './call.ts'
import { Gauge } from './gauge.ts'
import type { LaneDemand } from './gauge.ts'
import {
  goneFault,
  removedFault,
  saturatedFault,
  tooLargeFault,
  unavailableFault,
} from './faults.ts'
import { ServiceTime } from './service-time.ts'
import { Tally } from './tally.ts'
import type { LaneStats, Outcome } from './tally.ts'
import type { LaneCallbacks, LaneHost, LaneSettings } from './types.ts'
import { Watch } from './watch.ts'

const WATCH_MS = 1_000

/** One function on this node: where its calls wait, and the links they go to. */
export class Lane implements CallLane {
  readonly fn: string
  readonly tally = new Tally()
  readonly #host: LaneHost
  readonly #queue = new LinkedList<Call>()
  readonly #draining = new Set<Attachment>()
  readonly #watch: Watch
  readonly #gauge = new Gauge()
  #attached: Attachment[] = []
  #settings: LaneSettings
  #callbacks: LaneCallbacks
  #unavailable: Reason | undefined
  /** Calls that were sent and not released. */
  readonly #sent = new LinkedList<Call>()
  readonly #service = new ServiceTime()
  #removed = false

  constructor(fn: string, settings: LaneSettings, callbacks: LaneCallbacks, host: LaneHost) {
    this.fn = fn
    this.#settings = settings
    this.#callbacks = callbacks
    this.#host = host
    this.#watch = new Watch(() => this.#lookForLate())
  }

  get settings(): LaneSettings {
    return this.#settings
  }

  get bodyBytesMax(): number {
    return this.#settings.bodyBytesMax
  }

  get timeoutMs(): number {
    return this.#settings.timeoutMs
  }

  /** Links that take calls, without those that drain. */
  get links(): readonly RunnerLink[] {
    return this.#attached.map(({ link }) => link)
  }

  configure(settings: LaneSettings, callbacks: LaneCallbacks | undefined): void {
    this.#settings = settings
    if (callbacks !== undefined) this.#callbacks = callbacks
  }

  /**
   * Calls the function; exactly one of the two callbacks is called, once, perhaps before this returns.
   *
   * @param signal - aborts when the caller has gone
   */
  start(
    invocation: Invocation,
    signal: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (fault: Fault) => void,
  ): void {
    const nowMs = this.#host.wheel.nowMs()
    const asked = invocation.deadlineMs
    const limit = this.#settings.timeoutMs
    // Written so that NaN, too, means "no wish".
    const timeoutMs = asked !== undefined && asked < limit ? Math.max(0, asked) : limit
    const call = new Call(this, invocation, signal, resolve, reject, nowMs, nowMs + timeoutMs)
    this.#host.open(1)
    const target = this.#queue.length === 0 ? this.#target() : undefined
    const fault = this.#refusal(invocation, signal, target === undefined ? timeoutMs : undefined)
    if (fault !== undefined) return call.refuse(fault)
    this.#host.wheel.arm(call, call.deadlineAtMs)
    if (target === undefined) this.#wait(call)
    else this.#send(call, target, nowMs)
  }

  /**
   * Opens a link in state `ready` for traffic and makes the lane available. A link that closes leaves by itself; one that
   * has closed already is ignored.
   *
   * @param release - reported by `serving()`
   * @param concurrency - calls in flight on this link; default: the lane's setting at this time
   * @param callsMax - calls that it takes altogether, then it drains by itself (`onSpent`); default: no limit
   */
  attach(link: RunnerLink, release: string, concurrency?: number, callsMax?: number): void {
    if (link.state === 'closed') return
    if (!link.takesCalls) throw new RangeError(`attach of a link in state ${link.state}`)
    if (this.#attached.some((other) => other.link === link)) throw new RangeError('attached twice')
    for (const other of this.#draining) if (other.link === link) this.#drained(other)
    const perLink = concurrency ?? this.#settings.concurrency
    const attachment = new Attachment(link, release, perLink, callsMax)
    link.onDetach = () => this.#detach(attachment)
    this.#attached.push(attachment)
    this.#unavailable = undefined
    this.#pump()
  }

  /**
   * Takes a link out: no new calls. Resolves when those in flight have ended, the link has closed, or nobody waits any more: a
   * second after the last deadline, however long that is, unless `limitMs` is shorter (see `link.inFlight`). A link that is not
   * attached resolves at once.
   */
  drain(link: RunnerLink, limitMs = Number.POSITIVE_INFINITY): Promise<void> {
    const all = [...this.#attached, ...this.#draining]
    const attachment = all.find((other) => other.link === link)
    if (attachment === undefined) return Promise.resolve()
    this.#attached = this.#attached.filter((other) => other !== attachment)
    if (link.inFlight === 0) {
      this.#drained(attachment)
      return Promise.resolve()
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    const waitMs = Math.min(limitMs, this.#awaitedMs(attachment) + OVERRUN_MS)
    const timer = setTimeout(() => this.#drained(attachment), waitMs)
    attachment.drained = () => {
      clearTimeout(timer)
      resolve()
    }
    this.#draining.add(attachment)
    return promise
  }

  /** Releases that take calls now, distinct, in the order in which they were attached. */
  serving(): readonly string[] {
    return [...new Set(this.#attached.map(({ release }) => release))]
  }

  /** While no link is attached, calls are refused with this reason, those that wait too. `attach` or `setStarting` ends it. */
  setUnavailable(reason: Reason): void {
    this.#unavailable = reason
    if (this.#attached.length === 0) this.#emptyQueue(unavailableFault(this.fn, reason))
  }

  /** While no link is attached, calls wait until their deadline. So it is for a new lane. */
  setStarting(): void {
    this.#unavailable = undefined
  }

  /** Calls in flight, or in the queue. */
  get busy(): boolean {
    return this.#calls > 0
  }

  /** Begins a new peak. */
  takeDemand(): LaneDemand {
    return this.#gauge.take(this.#sent.length, this.#queue.length)
  }

  /** `onDemand` is called for the next call that has to wait while there are more than so many, it included. */
  alarmAbove(calls: number): void {
    this.#gauge.alarmAbove(calls)
  }

  stats(): LaneStats {
    return this.tally.stats(this.#sent.length, this.#queue.length, this.#host.wheel.nowMs())
  }

  /** Refuses all calls from now on; those in flight go on. */
  remove(): void {
    this.#removed = true
    this.#emptyQueue(removedFault(this.fn))
  }

  /** Ends every call with the fault, now. */
  endAll(fault: Fault): void {
    this.#emptyQueue(fault)
    const sent = [...this.#sent]
    for (const call of sent) call.end(fault, CANCEL.shuttingDown)
  }

  answerTo(fault: Fault): Result | undefined {
    if (this.#settings.errors !== 'tinyfaas' || fault.code !== 'FUNCTION_ERROR') return undefined
    const { text } = fault.details
    const body = Buffer.from(typeof text === 'string' ? text : fault.message)
    return { status: 200, headers: ['content-type', 'text/plain; charset=utf-8'], body }
  }

  unqueue(call: Call): void {
    this.#queue.remove(call)
  }

  settled(call: Call, outcome: Outcome): void {
    const nowMs = this.#host.wheel.nowMs()
    this.tally.count(outcome, nowMs - call.startedAtMs, nowMs)
    this.#gauge.lastCallAtMs = nowMs
    this.#host.open(-1)
  }

  released(call: Call): void {
    this.#sent.remove(call)
    const attachment = call.at
    if (attachment !== undefined) {
      attachment.ended += 1
      if (attachment.drained !== undefined && attachment.link.inFlight === 0) {
        this.#drained(attachment)
      }
    }
    const nowMs = this.#host.wheel.nowMs()
    this.#service.note(nowMs - call.sentAtMs)
    this.#host.shares.give()
    this.#host.poll.ended(nowMs)
    if (this.#queue.length > 0) this.#pump()
  }

  retries(call: Call, fault: Fault): boolean {
    if (fault.code !== 'FUNCTION_EXITED' || this.#settings.idempotent !== true) return false
    const elsewhere = this.#attached.some((other) => other !== call.at && other.link.takesCalls)
    return elsewhere && !this.#removed && Buffer.isBuffer(call.invocation.body)
  }

  retry(call: Call): void {
    this.tally.calls.retried += 1
    const target = this.#target(call.at)
    if (target !== undefined) return this.#send(call, target, this.#host.wheel.nowMs())
    this.#wait(call)
    // The handler that it comes from may go on and have room, and nobody would tell those behind it: better that one than none.
    this.#pump()
  }

  /** The node has a place for one more call, and it is this lane's turn. @returns whether another one waits for a turn */
  takeTurn(): boolean {
    const target = this.#queue.length === 0 ? undefined : leastLoaded(this.#attached)
    const call = target === undefined ? undefined : this.#queue.shift()
    if (target === undefined || call === undefined) return false
    this.#send(call, target, this.#host.wheel.nowMs())
    return this.#queue.length > 0
  }

  overran(call: Call): void {
    const attachment = call.at
    if (attachment === undefined || attachment.overrun) return
    attachment.overrun = true
    this.#callbacks.onOverrun?.(attachment.link)
  }

  rearm(call: Call, dueAtMs: number): void {
    this.#host.wheel.arm(call, dueAtMs)
  }

  disarm(call: Call): void {
    this.#host.wheel.disarm(call)
  }

  /** @param waitsMs - how long the call may wait and be answered; undefined: it does not wait */
  #refusal(
    { body }: Invocation,
    signal: CallerSignal | undefined,
    waitsMs: number | undefined,
  ): Fault | undefined {
    if (this.#removed) return removedFault(this.fn)
    if (signal?.aborted === true) return goneFault(this.fn)
    const { bodyBytesMax, concurrency, queue } = this.#settings
    if (Buffer.isBuffer(body) && body.length > bodyBytesMax) return tooLargeFault(bodyBytesMax)
    if (waitsMs === undefined) return undefined
    if (this.#attached.length === 0) {
      if (this.#unavailable !== undefined) return unavailableFault(this.fn, this.#unavailable)
      // Nothing runs yet: what the handler could have in flight waits as well.
      return this.#queue.length < queue + concurrency ? undefined : this.#saturated()
    }
    const places = this.#places
    const late = !this.#gauge.grows && this.#service.answerMs(this.#queue.length, places) > waitsMs
    return this.#queue.length < queue && !late ? undefined : this.#saturated()
  }

  /** Where one more call could be sent now. */
  #target(not?: Attachment): Attachment | undefined {
    if (!this.#host.shares.admits(this.#sent.length)) return undefined
    return leastLoaded(this.#attached, not)
  }

  #wait(call: Call): void {
    this.#queue.push(call)
    if (this.#gauge.noteWaiting(this.#calls)) this.#callbacks.onDemand?.()
    if (!this.#host.shares.admits(this.#sent.length)) this.#host.shares.wait(this)
  }

  #send(call: Call, target: Attachment, nowMs: number): void {
    const leftMs = Math.max(1, Math.round(call.deadlineAtMs - nowMs))
    call.at = target
    call.phase = 'running'
    call.sentAtMs = nowMs
    this.#sent.push(call)
    this.#host.shares.take()
    this.#gauge.note(this.#calls)
    try {
      if (target.spend(call.invocation)) this.#spent(target)
      target.link.start(call, leftMs)
    } catch (error) {
      this.#sent.remove(call)
      call.refuse(Fault.from(error))
      return this.#host.shares.give()
    }
    this.#host.poll.sent(nowMs, call.startedAtMs, this.#service.usualMs)
    if (this.#watch.bucket === -1) this.#host.wheel.arm(this.#watch, nowMs + WATCH_MS)
  }

  get #calls(): number {
    return this.#sent.length + this.#queue.length
  }

  /** Before its last call is sent: when the link breaks with that, it is known to be leaving already. */
  #spent(attachment: Attachment): void {
    this.#attached = this.#attached.filter((other) => other !== attachment)
    this.#draining.add(attachment)
    this.#callbacks.onSpent?.(attachment.link)
  }

  /** Sends what waits while there is room. */
  #pump(): void {
    while (this.#queue.length > 0) {
      const target = this.#target()
      if (target === undefined) {
        if (!this.#host.shares.admits(this.#sent.length)) this.#host.shares.wait(this)
        return
      }
      const call = this.#queue.shift()
      if (call !== undefined) this.#send(call, target, this.#host.wheel.nowMs())
    }
  }

  #emptyQueue(fault: Fault): void {
    for (let call = this.#queue.shift(); call !== undefined; call = this.#queue.shift()) {
      call.refuse(fault)
    }
  }

  #detach(attachment: Attachment): void {
    this.#attached = this.#attached.filter((other) => other !== attachment)
    this.#drained(attachment)
    // The last link of a function that has been called unavailable meanwhile.
    if (this.#attached.length === 0 && this.#unavailable !== undefined) {
      this.#emptyQueue(unavailableFault(this.fn, this.#unavailable))
    }
  }

  /** Until the last deadline of the calls there that somebody waits for. */
  #awaitedMs(attachment: Attachment): number {
    const nowMs = this.#host.wheel.nowMs()
    let lastAtMs = nowMs
    for (const call of this.#sent) {
      const awaited = call.at === attachment && call.phase !== 'abandoned'
      if (awaited && call.deadlineAtMs > lastAtMs) lastAtMs = call.deadlineAtMs
    }
    return lastAtMs - nowMs
  }

  #drained(attachment: Attachment): void {
    this.#draining.delete(attachment)
    attachment.drained?.()
    attachment.drained = undefined
  }

  /** Once a second while calls are in flight: PING on links where none has ended since the last look. */
  #lookForLate(): void {
    let busy = false
    for (const attachment of [...this.#attached, ...this.#draining]) {
      if (attachment.link.inFlight === 0) continue
      busy = true
      if (attachment.ended === attachment.endedBefore) attachment.link.probe()
      attachment.endedBefore = attachment.ended
    }
    const { wheel } = this.#host
    if (busy) wheel.arm(this.#watch, wheel.nowMs() + WATCH_MS)
  }

  #saturated(): Fault {
    return saturatedFault(this.fn, this.#service.retryAfterMs(this.#queue.length, this.#places))
  }

  /** Calls that its links take at once. */
  get #places(): number {
    let places = 0
    for (const { concurrency } of this.#attached) places += concurrency
    return places
  }
}
