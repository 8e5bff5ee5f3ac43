import type { CallerListener, CallerSignal } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { faultOf } from '../../fault-answer.ts'
import { NO_ROOM } from '../../gathering.ts'
import type { ProxyLog } from '../../log.ts'
import type { CallSet, Placed } from './call-set.ts'
import type { CallStream, CallStreamListener } from './call-stream.ts'
import type { Inflater } from './inflate.ts'
import { type MessageLimits, MessageReader, type MessageSink } from './message-reader.ts'
import type { MessageConsumer, Method } from './method.ts'
import { type RequestHead, timeoutMsOf } from './request-head.ts'
import { pushback, type Status, STATUS, StatusError, statusOf, trailersOf } from './status.ts'

/** What a call needs of its server. */
export interface CallHost extends MessageLimits {
  readonly inflater: Inflater
  readonly log: ProxyLog
  /** Calls that have no outcome yet. */
  readonly calls: CallSet<ServerCall>
}

/** Functions answer for their deadline themselves, and say more: this long after it the server does. */
const DEADLINE_GRACE_MS = 50
const TIMER_MS_MAX = 2 ** 31 - 1

/**
 * One call, from its header to its outcome.
 *
 *     receiving --END_STREAM--> running --answer, finish, fail--> over
 *         \                        \--caller gone, deadline, server stops--> over
 *          \--fault in the request, caller gone, deadline, server stops----> over
 *
 * A method that takes a stream of messages is running from the start.
 */
export class ServerCall implements CallStreamListener, MessageSink, CallerSignal, Placed {
  readonly head: RequestHead
  /** The call is over before its answer ... */
  aborted = false
  /** ... by this fault. */
  reason: Fault | undefined
  readonly arrivedAtMs = performance.now()
  place = -1
  /** What the caller allows in all; `undefined`: no limit. */
  readonly timeoutMs: number | undefined
  /** Told once, when the call is over for whatever reason. */
  onOver: (() => void) | undefined
  readonly #host: CallHost
  readonly #stream: CallStream
  readonly #method: Method
  readonly #reader: MessageReader
  readonly #consumer: MessageConsumer | undefined
  #state: 'receiving' | 'running' | 'over' = 'receiving'
  #answering = false
  #message: Buffer | undefined
  /** Messages behind one that is being unpacked; `undefined` while none is. */
  #behind: { readonly bytes: Buffer; readonly compressed: boolean }[] | undefined
  #heldBytes = 0
  #listener: CallerListener | undefined
  #timer: NodeJS.Timeout | undefined
  #drained: (() => void) | undefined

  constructor(host: CallHost, stream: CallStream, head: RequestHead, method: Method) {
    this.#host = host
    this.#stream = stream
    this.head = head
    this.#method = method
    this.#reader = new MessageReader(this, host)
    this.timeoutMs = head.timeout === undefined ? undefined : timeoutMsOf(head.timeout)
    host.calls.add(this)
    if (head.timeout !== undefined) this.#limit(head.timeout)
    if (method.kind === 'stream' && !this.isOver) {
      this.#state = 'running'
      this.#consumer = method.open(this)
    }
  }

  get isOver(): boolean {
    return this.#state === 'over'
  }

  /** Since when the server waits for the rest of the request; `undefined` when it does not. */
  get receivingSinceMs(): number | undefined {
    return this.#state === 'receiving' ? this.arrivedAtMs : undefined
  }

  /** One listener: the call of the function. */
  addEventListener(_: 'abort', listener: CallerListener): void {
    if (this.#listener !== undefined) throw new RangeError('a call has one listener')
    this.#listener = listener
  }

  removeEventListener(_: 'abort', listener: CallerListener): void {
    if (this.#listener === listener) this.#listener = undefined
  }

  /** Sends the only message, and that all went well. The frame is the message with its prefix. No effect once over. */
  answer(frame: Buffer): void {
    if (this.isOver) return
    this.#giveBack()
    if (frame.length > HELD_BYTES_MIN) {
      const { budget } = this.#host
      const over = budget.bytes + frame.length - budget.bytesMax
      if (over > FRAME_BYTES_OVER) return this.fail(MESSAGES.unsent)
      budget.force(frame.length)
      this.#heldBytes += frame.length
    }
    this.#end()
    this.#stream.answer(frame)
  }

  /** Sends one of several messages; false: wait for `drained` before the next. */
  send(frame: Buffer): boolean {
    if (this.isOver) return true
    if (!this.#answering) {
      this.#answering = true
      this.#stream.open()
    }
    return this.#stream.write(frame)
  }

  /** Resolves when there is room again after a `send` that said false; rejects with the fault when the call is over first. */
  async untilDrained(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#drained = resolve
    if (!this.isOver) await promise
    if (this.reason !== undefined) throw this.reason
  }

  /** All messages are sent, and all went well. */
  finish(): void {
    this.fail(OK)
  }

  /** Ends the call with a status. No effect once over. */
  fail(status: Status): void {
    if (this.isOver) return
    const answering = this.#answering
    this.#end()
    if (answering) this.#stream.end(trailersOf(status))
    else this.#stream.refuse(trailersOnly(status))
  }

  /** Ends the call and whatever works on it. No effect once over. */
  cancel(fault: Fault): void {
    if (this.isOver) return
    this.fail(statusOf(fault))
    this.#abandon(fault)
  }

  /** Takes no more messages until `resume`. */
  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  data(chunk: Buffer): void {
    if (this.isOver) return
    this.#guard(() => this.#reader.push(chunk))
  }

  end(): void {
    if (!this.isOver) this.#guard(() => this.#run())
  }

  drained(): void {
    this.#drained?.()
  }

  closed(): void {
    this.#giveBack()
    if (this.isOver) return
    this.#end()
    this.#abandon(new Fault('CALLER_GONE', 'the caller has gone'))
  }

  message(bytes: Buffer, compressed: boolean): void {
    if (this.#behind !== undefined) this.#behind.push({ bytes, compressed })
    else if (compressed) this.#inflate(bytes)
    else this.#take(bytes)
  }

  #take(bytes: Buffer): void {
    if (this.#consumer !== undefined) return this.#consumer.message(bytes)
    if (this.#message !== undefined) throw new StatusError(MESSAGES.several)
    // Until its END_STREAM has come it is nobody's but ours.
    if (this.#hold(bytes.length)) this.#message = bytes
  }

  #inflate(bytes: Buffer): void {
    const behind: { readonly bytes: Buffer; readonly compressed: boolean }[] = []
    this.#behind = behind
    this.#stream.pause()
    const { inflater, messageBytesMax, budget } = this.#host
    // It may wait for its turn longer than its call lasts.
    budget.force(bytes.length)
    inflater.inflate(this.head.encoding, bytes, messageBytesMax, (result) => {
      budget.give(bytes.length)
      this.#behind = undefined
      if (this.isOver) return
      if (!Buffer.isBuffer(result)) return this.fail(result)
      this.#guard(() => {
        this.#take(result)
        for (const one of behind) this.message(one.bytes, one.compressed)
        if (this.#behind === undefined) this.#stream.resume()
      })
    })
  }

  /** The request is complete. */
  #run(): void {
    if (this.#reader.partial) throw new StatusError(MESSAGES.cut)
    const method = this.#method
    if (method.kind === 'stream') return this.#consumer?.end()
    if (this.#message === undefined) throw new StatusError(MESSAGES.none)
    this.#state = 'running'
    method.handle(this, this.#message)
  }

  #limit(text: string): void {
    const ms = this.timeoutMs
    if (ms === undefined) {
      this.fail({ code: STATUS.internal, message: `malformed grpc-timeout ${text}` })
      return
    }
    const late = (): void => {
      this.cancel(new Fault('DEADLINE_EXCEEDED', `no answer within ${ms} ms`, { timeoutMs: ms }))
    }
    this.#timer = setTimeout(late, Math.min(TIMER_MS_MAX, Math.ceil(ms) + DEADLINE_GRACE_MS))
  }

  #giveBack(): void {
    this.#host.budget.give(this.#heldBytes)
    this.#heldBytes = 0
  }

  /** False, and the call is over, when a message cannot be held until it is taken. */
  #hold(bytes: number): boolean {
    if (bytes <= HELD_BYTES_MIN) return true
    if (!this.#host.budget.take(bytes)) {
      this.fail(MESSAGES.full)
      return false
    }
    this.#heldBytes += bytes
    return true
  }

  #end(): void {
    this.#state = 'over'
    this.#host.calls.delete(this)
    this.#reader.close()
    clearTimeout(this.#timer)
    this.onOver?.()
  }

  #abandon(fault: Fault): void {
    this.aborted = true
    this.reason = fault
    this.#listener?.handleEvent()
    this.#drained?.()
  }

  #guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (error instanceof StatusError) this.fail(error.status)
      else this.fail(statusOf(faultOf(error, '', this.#host.log)))
    }
  }
}

/** Messages below this are not counted: most are on their way at once. */
const HELD_BYTES_MIN = 16 * 1024
/** An answer that had room while it was gathered has it with its head and prefix as well. */
const FRAME_BYTES_OVER = 16 * 1024

const OK: Status = { code: 0, message: '' }

const MESSAGES = {
  none: { code: STATUS.unimplemented, message: 'the request holds no message, one is expected' },
  several: { code: STATUS.unimplemented, message: 'the request holds several messages' },
  cut: { code: STATUS.internal, message: 'the request ends within a message' },
  full: {
    code: STATUS.resourceExhausted,
    message: 'this node holds as many bytes of requests as it may',
    trailers: ['shoal-retry', 'true', ...pushback(1_000)],
  },
  // The function has run: nobody should try again without a thought.
  unsent: { code: STATUS.resourceExhausted, message: NO_ROOM },
} as const satisfies Record<string, Status>

/** The header of an answer that has no message. */
export function trailersOnly(status: Status): string[] {
  return [':status', '200', 'content-type', 'application/grpc', ...trailersOf(status)]
}
