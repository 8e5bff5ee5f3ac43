import { Fault } from '#shared/fault.ts'
import { cutText } from '#shared/text.ts'
import {
  ERROR_KIND,
  FRAME,
  FRAME_LIMITS,
  LOG_LEVELS,
  ProtocolError,
  byteAt,
  frameName,
  readReady,
  readText,
} from '../frames/index.ts'
import type { CancelReason } from '../frames/index.ts'
import { CallTable } from './call-table.ts'
import type { ConnectionOwner } from './connection.ts'
import { LogLimit } from './log-limit.ts'
import { PingPong } from './ping-pong.ts'
import type {
  LinkCall,
  LinkConnection,
  LinkEnd,
  LinkState,
  RunnerHello,
  RunnerInit,
  RunnerLogLine,
} from './types.ts'
import { withSignal } from './with-signal.ts'

/** Of a function's error, in its log. */
const ERROR_LINES_MAX = 50

/**
 * One live connection to one runner, from WELCOME on.
 *
 *     greeted --init()--> loading --READY ok--> ready
 *                            \-----READY not ok--> failed        any --end--> closed
 */
export class RunnerLink implements ConnectionOwner {
  readonly hello: RunnerHello
  /**
   * Set this and `onClose` inside `onLink`: no line and no end can come before. Called for each line that the function
   * writes; must not throw.
   */
  onLog: ((line: RunnerLogLine) => void) | undefined
  /** Called once, after all calls in flight have been answered with a fault. */
  onClose: ((end: LinkEnd) => void) | undefined
  /** For the lane that uses the link; called before the calls in flight are answered. */
  onDetach: (() => void) | undefined
  readonly #connection: LinkConnection
  readonly #calls: CallTable
  readonly #pings: PingPong
  readonly #logLimit: LogLimit
  readonly #ready = Promise.withResolvers<void>()
  #state: LinkState
  #leaving = false

  constructor(
    connection: LinkConnection,
    hello: RunnerHello,
    windowBytes: number,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#connection = connection
    this.hello = hello
    this.#calls = new CallTable(connection.writer, windowBytes)
    this.#pings = new PingPong(connection.writer, nowMs)
    this.#logLimit = new LogLimit({ nowMs, onDropped: (lines) => this.#onDropped(lines) })
    this.#state = hello.state === 'empty' ? 'greeted' : 'loading'
    // Whoever does not wait for READY sees the state instead.
    this.#ready.promise.catch(() => {})
  }

  get handlerId(): string {
    return this.hello.handler
  }

  get state(): LinkState {
    return this.#state
  }

  /** May be given calls. */
  get takesCalls(): boolean {
    return this.#state === 'ready' && !this.#leaving
  }

  /** Calls the runner has not ended yet; cancelled ones count until it has. */
  get inFlight(): number {
    return this.#calls.inFlight
  }

  /** True while a PONG is overdue by a second: the loop that runs the function is blocked. */
  get blocked(): boolean {
    return this.#pings.overdue
  }

  /**
   * Sends INIT and waits for READY. Only for a runner whose `hello.state` is `empty`, once.
   *
   * @throws Fault `FUNCTION_LOAD` (message: first line of the function's error; `details.text`: all of it), `HANDLER_START`
   *   (the link ended first); the signal's reason
   */
  async init(init: RunnerInit, signal?: AbortSignal): Promise<void> {
    if (this.#state === 'closed') return this.ready(signal)
    if (this.#state !== 'greeted') throw new RangeError(`INIT for a runner in state ${this.#state}`)
    const payload = Buffer.from(JSON.stringify(init))
    if (payload.length > FRAME_LIMITS.payloadBytesMax) {
      throw new Fault('HANDLER_START', 'The environment of the function is too large for a frame')
    }
    this.#state = 'loading'
    this.#connection.writer.control(FRAME.init, 0, payload)
    await this.ready(signal)
  }

  /**
   * Waits for READY without sending anything: for a runner that kept its function across connections.
   *
   * @throws as `init`
   */
  ready(signal?: AbortSignal): Promise<void> {
    return withSignal(this.#ready.promise, signal)
  }

  /**
   * Round trip in milliseconds. At most one PING is under way: a second caller waits for the same PONG.
   *
   * @throws Fault `FUNCTION_UNAVAILABLE` when it takes longer than `timeoutMs` (default 1,000) or the link ends
   */
  ping(timeoutMs = 1_000): Promise<number> {
    return this.#pings.ping(timeoutMs)
  }

  /** Sends PING unless one is under way or was sent within the last second; `blocked` tells how it went. */
  probe(): void {
    if (this.#state !== 'closed') this.#pings.probe()
  }

  /**
   * Sends a call. Only while `takesCalls`.
   *
   * @param deadlineMs - what is left, at least 1
   * @throws Fault `REQUEST_INVALID`, `BODY_TOO_LARGE`; none of the call's methods is called then
   */
  start(call: LinkCall, deadlineMs: number): void {
    if (!this.takesCalls) throw new RangeError(`A call for a runner in state ${this.#state}`)
    this.#calls.start(call, deadlineMs)
  }

  /** Sends CANCEL for a call in flight; its body, when it is being read, breaks with the fault. `released` still comes. */
  cancel(call: LinkCall, reason: CancelReason, fault: Fault): void {
    if (this.#state !== 'closed') this.#calls.cancel(call, reason, fault)
  }

  /** Asks the runner to finish its calls and exit 0; `onClose` tells when it has. Takes no calls from now on. */
  shutdown(): void {
    if (this.#state === 'closed' || this.#leaving) return
    this.#leaving = true
    this.#connection.writer.control(FRAME.shutdown, 0, NO_BYTES)
  }

  /** Ends the connection; calls in flight get `FUNCTION_EXITED`. Idempotent. */
  close(reason = 'The agent closed the connection'): void {
    this.#connection.end({ kind: 'closed', reason })
  }

  /** As `close`, because a newer connection of the same handler takes its place. */
  replace(): void {
    this.#connection.end({ kind: 'replaced', reason: 'The runner connected again' })
  }

  frame(
    type: number,
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    if (this.#state === 'closed') return
    if (type === FRAME.response) {
      this.#allow(type)
      this.#calls.response(flags, id, buffer, start, end, owned)
    } else if (type === FRAME.data) {
      this.#allow(type)
      this.#calls.data(flags, id, buffer, start, end, owned)
    } else {
      this.#other(type, id, buffer, start, end)
    }
  }

  ended(end: LinkEnd): void {
    this.#state = 'closed'
    this.#logLimit.close()
    this.onDetach?.()
    const details = { handler: this.handlerId }
    const code = end.kind === 'protocol' ? 'FUNCTION_BAD_ANSWER' : 'FUNCTION_EXITED'
    this.#calls.failAll(new Fault(code, end.reason, details))
    this.#ready.reject(new Fault('HANDLER_START', end.reason, details))
    this.#pings.fail(new Fault('FUNCTION_UNAVAILABLE', end.reason, details))
    this.onClose?.(end)
  }

  #other(type: number, id: number, buffer: Buffer, start: number, end: number): void {
    switch (type) {
      case FRAME.error:
        this.#allow(type)
        return this.#onErrorFrame(id, buffer, start, end)
      case FRAME.window:
        this.#allow(type)
        return this.#calls.window(id, buffer, start)
      case FRAME.log:
        return this.#onLogFrame(id, buffer, start, end)
      case FRAME.ping:
        return this.#connection.pong(id, buffer.subarray(start, end))
      case FRAME.pong:
        return this.#pings.pong(id)
      case FRAME.ready:
        return this.#onReady(buffer, start, end)
      case FRAME.hello:
      case FRAME.welcome:
      case FRAME.init:
      case FRAME.shutdown:
      case FRAME.request:
      case FRAME.cancel:
        throw new ProtocolError(`${frameName(type)} from a runner that has been welcomed`)
      default: // A later version's; ignored.
    }
  }

  /** What a function fails with goes into its log too: the caller is told the first line only. */
  #onErrorFrame(id: number, buffer: Buffer, start: number, end: number): void {
    const request = this.#calls.requestOf(id)
    const kind = byteAt(buffer, start)
    this.#calls.error(id, buffer, start, end)
    const isOwn = kind === ERROR_KIND.functionError || kind === ERROR_KIND.exited
    if (!isOwn || this.onLog === undefined || !this.#logLimit.admits(end - start)) return
    const lines = readText(buffer, start + 1, end).split('\n', ERROR_LINES_MAX)
    for (const text of lines) {
      if (text !== '') this.onLog({ level: 'error', request, text })
    }
  }

  #onLogFrame(id: number, buffer: Buffer, start: number, end: number): void {
    if (!this.#logLimit.admits(end - start)) return
    this.onLog?.({
      level: LOG_LEVELS[byteAt(buffer, start)] ?? 'info',
      request: this.#calls.requestOf(id),
      text: readText(buffer, start + 1, end),
    })
  }

  #onDropped(lines: number): void {
    this.onLog?.({ level: 'warn', request: undefined, text: `[${lines} log lines dropped]` })
  }

  #onReady(buffer: Buffer, start: number, end: number): void {
    if (this.#state !== 'loading') throw new ProtocolError(`READY in state ${this.#state}`)
    const message = readReady(buffer, start, end)
    if (message.ok) {
      this.#state = 'ready'
      this.#ready.resolve()
      return
    }
    this.#state = 'failed'
    const text = cutText(message.error ?? '', FRAME_LIMITS.textBytesMax)
    const first = text.split('\n', 1)[0] ?? ''
    this.#ready.reject(
      new Fault('FUNCTION_LOAD', first === '' ? 'The function cannot be loaded' : first, {
        handler: this.handlerId,
        text,
      }),
    )
  }

  #allow(type: number): void {
    if (this.#state !== 'ready') throw new ProtocolError(`${frameName(type)} before READY`)
  }
}

const NO_BYTES = Buffer.alloc(0)
