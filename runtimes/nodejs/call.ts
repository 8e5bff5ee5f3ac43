import { exceedsUnsent, holdBytes, tookBytes } from './body-memory.ts'
import type { BodySink } from './body-sink.ts'
import { runAs, type CallRef } from './current-call.ts'
import { cut, END, KIND, LIMIT, ProtocolError, TYPE } from './protocol.ts'
import type { WholeBody } from './whole-body.ts'
import type { FrameWriter } from './writer.ts'

/** What a call needs of the connection it came by. */
export interface CallHost {
  readonly writer: FrameWriter
  readonly windowBytes: number
  readonly payloadBytesMax: number
  /** Called once, when the answer has been handed to the writer or the call is lost. */
  ended(call: Call): void
  /** Sends what the function wrote without a line feed. */
  flushPartialLines(call: Call): void
}

interface Waiting {
  readonly bytes: Uint8Array
  from: number
  readonly taken: (() => void) | undefined
}

/**
 * One call: its request, and its answer with flow control both ways.
 *
 * ```
 * [open] --answer / fail--> [ended]
 *    \--start--> [started] --finish (all sent) / fail--> [ended]
 * [open], [started] --cancel--> [cancelled] --release, or any of the above (at once unless held)--> [ended]
 * ```
 */
export class Call {
  readonly id: number
  readonly deadlineMs: number
  /** method, path, query, then name, value, ... */
  readonly lines: readonly string[]
  /** The body when it came with the request; undefined: it comes in parts. */
  readonly whole: WholeBody | undefined
  ended = false
  started = false
  /** The function works on it: when it is cancelled it ends by `release`, and its place is taken until then. */
  held = false
  /** Told when the call is cancelled or lost. */
  onAbort: { aborted(reason: Error): void } | undefined
  /** Text written to stdout and stderr that no line feed has ended yet. */
  readonly partial: [string, string] = ['', '']
  /** What async contexts hold of it. */
  readonly ref: CallRef = { call: this }
  readonly #host: CallHost
  #abort: AbortController | undefined
  #aborted: Error | undefined
  #cancelled: string | undefined

  #sendCredit: number
  #finishing = false
  #waiting: Waiting[] | undefined
  #waitingBytes = 0

  /** All of the body has come. */
  #bodyComplete: boolean
  /** No more of the body comes: it is complete, or nobody waits for the answer. */
  #bodyEnded: boolean
  #receiveCredit: number
  #consumed = 0
  #sink: BodySink | undefined
  #heldBytes = 0
  #early: Buffer[] | undefined

  constructor(
    id: number,
    deadlineMs: number,
    lines: readonly string[],
    whole: WholeBody | undefined,
    first: Buffer | undefined,
    host: CallHost,
  ) {
    this.id = id
    this.deadlineMs = deadlineMs
    this.lines = lines
    this.whole = whole
    this.#host = host
    this.#sendCredit = host.windowBytes
    this.#receiveCredit = host.windowBytes
    this.#bodyComplete = whole !== undefined
    this.#bodyEnded = this.#bodyComplete
    if (first !== undefined) this.receive(first, false)
  }

  /** The first value of a request header, by its lower-case name. */
  header(name: string): string | undefined {
    const { lines } = this
    for (let at = 3; at < lines.length; at += 2) if (lines[at] === name) return lines[at + 1]
    return undefined
  }

  /** What log lines carry: an id that has been given back is no longer this call's. */
  get logId(): number {
    return this.ended ? 0 : this.id
  }

  /** Aborts when the call is cancelled. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#aborted !== undefined) this.#abort.abort(this.#aborted)
    }
    return this.#abort.signal
  }

  // --- the request's body, when it comes in parts ---

  /** Body bytes from the agent; they may be overwritten after the call. */
  receive(bytes: Buffer, last: boolean): void {
    if (this.#bodyEnded) {
      throw new ProtocolError('FORBIDDEN', `call ${this.id}: data after the end of the body`)
    }
    this.#receiveCredit -= bytes.length
    if (this.#receiveCredit < 0) {
      throw new ProtocolError('WINDOW_EXCEEDED', `call ${this.id}: more body than granted`)
    }
    this.#bodyEnded = last
    if (this.#sink === undefined) {
      if (bytes.length > 0) (this.#early ??= []).push(Buffer.from(bytes))
      this.#bodyComplete = last
      return
    }
    if (bytes.length > 0) this.#sink.chunk(bytes)
    // A part that is too much ends the call, and the sink has been told so.
    if (!last || this.ended) return
    this.#bodyComplete = true
    this.#sink.end()
  }

  /** Sends the body, from its first byte on, to `sink`. Of what it gets it has to report what is used up (`consumed`). */
  readInto(sink: BodySink): void {
    this.#sink = sink
    const early = this.#early ?? []
    this.#early = undefined
    for (const bytes of early) sink.chunk(bytes)
    if (this.#bodyComplete) {
      sink.end()
      return
    }
    // What a cancelled call got of its body must not pass for the whole.
    const lost = this.#aborted ?? (this.ended ? new Error(CALL_ENDED) : undefined)
    if (lost !== undefined) sink.lost(lost)
  }

  /** `bytes` of the body have been used up; the agent may send as many more. */
  consumed(bytes: number): void {
    this.#consumed += bytes
    if (this.#bodyEnded || this.ended || this.#consumed * 2 < this.#host.windowBytes) return
    this.#receiveCredit += this.#consumed
    this.#host.writer.window(this.id, this.#consumed)
    this.#consumed = 0
  }

  /** The memory that its body takes now, all of it. */
  holds(bytes: number): void {
    if (this.ended) return
    holdBytes(bytes - this.#heldBytes)
    this.#heldBytes = bytes
  }

  // --- the answer ---

  /**
   * Answers with a body that is there as a whole.
   *
   * @param sent - called when it is all on its way and its bytes may be overwritten, or when nobody wants it
   */
  answer(
    status: number,
    head: string,
    body: string | Uint8Array | undefined,
    sent?: () => void,
  ): void {
    if (this.release() || this.started || !this.#valid(status, head)) {
      sent?.()
      return
    }
    if (typeof body === 'string' && body.length <= TEXT_CHARS_MAX) {
      this.#host.flushPartialLines(this)
      this.#host.writer.responseText(this.id, END, status, head, body)
      this.#end()
      sent?.()
      return
    }
    const bytes = typeof body === 'string' ? Buffer.from(body) : (body ?? EMPTY)
    const length = bytes.length
    if (length > this.#inlineBytes(head)) {
      this.start(status, head)
      this.write(bytes, sent)
      this.finish()
      return
    }
    this.#host.flushPartialLines(this)
    const { writer } = this.#host
    const lent = writer.responseBytes(this.id, END, status, head, bytes, 0, length, this.#own(sent))
    this.#end()
    if (!lent) sent?.()
  }

  /** Begins an answer whose body follows by `write`. */
  start(status: number, head: string): void {
    if (!this.wanted || this.started || !this.#valid(status, head)) return
    this.started = true
    this.#host.writer.responseBytes(this.id, 0, status, head, EMPTY, 0, 0)
  }

  /**
   * Sends body bytes, or keeps them until the agent grants more.
   *
   * @param taken - called when they are all on their way and may be overwritten; a source that waits for it never has more than these waiting
   */
  write(bytes: Uint8Array, taken?: () => void): void {
    if (!this.wanted) {
      // Not at once: a source that pays no heed to the end of the call must not turn for ever.
      if (taken !== undefined) setImmediate(taken)
      return
    }
    tookBytes(bytes.length)
    this.#waitingBytes += bytes.length
    ;(this.#waiting ??= []).push({ bytes, from: 0, taken })
    this.#pump()
    // Pieces pile up in the source, which waits for each to be taken: see `ClassicResponse.write`.
    this.checkUnsent(this.#waitingBytes, false)
  }

  /** Ends the call when more waits for its caller than may. */
  checkUnsent(bytes: number, piled: boolean): void {
    if (!exceedsUnsent(bytes, piled)) return
    this.fail(
      KIND.LIMIT,
      `the function wrote ${bytes} bytes more than its caller has read; wait for 'drain' or use pipe()`,
    )
  }

  finish(): void {
    if (this.release()) return
    this.#finishing = true
    this.#pump()
  }

  /** The agent has taken `bytes` of the answer. */
  grant(bytes: number): void {
    // No agent that consumes what it grants gets beyond the window; one that does would have the output pile up here.
    this.#sendCredit = Math.min(this.#host.windowBytes, this.#sendCredit + bytes)
    // What a cancelled call had left to send has been dropped: END must not make a whole answer of the part before it.
    if (this.wanted) this.#pump()
  }

  /** Ends the call with an error; also in the middle of an answer. */
  fail(kind: number, message: string): void {
    if (this.ended) return
    this.#host.flushPartialLines(this)
    this.#host.writer.text(TYPE.ERROR, this.id, kind, cut(message, LIMIT.textBytes))
    this.#end(new Error(CALL_ENDED))
  }

  /** Nobody waits for the answer any more: the function is told, and the call ends when the function lets go of it. */
  cancel(message: string): void {
    if (!this.wanted) return
    this.#cancelled = message
    this.#bodyEnded = true
    const waiting = this.#dropWaiting()
    this.abort(new Error(message))
    wakeSources(waiting)
    if (!this.held) this.release()
  }

  /** What a cancelled call used is free again. True when nothing more can be answered. */
  release(): boolean {
    if (this.#cancelled !== undefined) this.fail(KIND.CANCELLED, this.#cancelled)
    return this.ended
  }

  /** Somebody waits for the answer. */
  get wanted(): boolean {
    return !this.ended && this.#cancelled === undefined
  }

  /** Tells the function to stop, without an answer. */
  abort(reason: Error): void {
    if (this.#aborted !== undefined) return
    this.#aborted = reason
    if (!this.#bodyComplete) this.#sink?.lost(reason)
    this.onAbort?.aborted(reason)
    this.#abort?.abort(reason)
  }

  /** Runs `action` as this call: what it throws, now or later, is the call's error. */
  run(action: (call: Call) => void): void {
    runAs(this, action)
  }

  /** The connection is gone: nobody waits for an answer any more. */
  lose(reason: Error): void {
    if (this.ended) return
    // It waits for the next connection, like all lines.
    this.#host.flushPartialLines(this)
    this.#end(reason)
  }

  #valid(status: number, head: string): boolean {
    if (!Number.isInteger(status) || status < 200 || status > 599) {
      this.fail(
        KIND.BAD_ANSWER,
        `the function answered with status ${status}; it must be 200 to 599`,
      )
      return false
    }
    if (head.length * 3 > LIMIT.headBytes && Buffer.byteLength(head) > LIMIT.headBytes) {
      this.fail(KIND.BAD_ANSWER, `the function's headers are above ${LIMIT.headBytes} bytes`)
      return false
    }
    return true
  }

  #inlineBytes(head: string): number {
    return Math.min(
      this.#sendCredit,
      this.#host.payloadBytesMax - 4 - head.length * 3,
      LIMIT.frameBodyBytes,
    )
  }

  #pump(): void {
    while (!this.ended) {
      const next = this.#waiting?.[0]
      if (next === undefined) break
      const left = next.bytes.length - next.from
      const count = Math.min(
        left,
        this.#sendCredit,
        LIMIT.frameBodyBytes,
        this.#host.payloadBytesMax,
      )
      if (count === 0 && left > 0) return
      this.#waitingBytes -= count
      this.#sendCredit -= count
      const last = count === left
      if (last) this.#waiting?.shift()
      const end = last && count > 0 && this.#finishing && this.#waitingBytes === 0
      const lent = count > 0 && this.#sendPart(next, count, end ? END : 0, last)
      next.from += count
      if (end) this.#end()
      if (last && !lent) next.taken?.()
    }
    if (this.#finishing && !this.ended) {
      this.#sendPart({ bytes: EMPTY, from: 0, taken: undefined }, 0, END, true)
      this.#end()
    }
  }

  /** True: the socket uses its bytes still, and calls `taken` when it no longer does. */
  #sendPart({ bytes, from, taken }: Waiting, count: number, flags: number, last: boolean): boolean {
    // Before END: behind it the id may be another call's, and the line would be logged as that one's.
    if (flags === END) this.#host.flushPartialLines(this)
    const done = last ? this.#own(taken) : undefined
    return this.#host.writer.data(this.id, flags, bytes, from, from + count, done)
  }

  /** For the socket, which calls back in any call's context. */
  #own(taken: (() => void) | undefined): (() => void) | undefined {
    return taken && (() => this.run(() => taken()))
  }

  /** @param early - why the call ends before its answer does: the function is told before its source is asked for more */
  #end(early?: Error): void {
    this.ended = true
    this.ref.call = undefined
    holdBytes(-this.#heldBytes)
    const waiting = this.#dropWaiting()
    this.#host.ended(this)
    if (early !== undefined) this.abort(early)
    // Answered before all of the body had come: frames that still come of it are ignored, and who reads it would wait for ever.
    else if (!this.#bodyComplete) this.#sink?.lost(new Error(CALL_ENDED))
    wakeSources(waiting)
  }

  #dropWaiting(): readonly Waiting[] | undefined {
    const waiting = this.#waiting
    this.#waiting = undefined
    this.#waitingBytes = 0
    return waiting
  }
}

/** Lets the sources of what will not be sent go on: they find that nobody wants more. */
function wakeSources(waiting: readonly Waiting[] | undefined): void {
  if (waiting !== undefined) for (const each of waiting) each.taken?.()
}

const EMPTY = new Uint8Array(0)
const CALL_ENDED = 'the call has ended'
/** Text up to this length is encoded straight into the batch; no window is smaller than its bytes. */
const TEXT_CHARS_MAX = 8_192
