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

/** A message that cannot be taken yet. */
interface Behind {
  readonly bytes: Buffer
  readonly compressed: boolean
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
  readonly #limits: MessageLimits
  readonly #reader: MessageReader
  readonly #consumer: MessageConsumer | undefined
  #state: 'receiving' | 'running' | 'over' = 'receiving'
  #answering = false
  #message: Buffer | undefined
  /** Messages behind one that is being unpacked, or after `pause`; else `undefined`. */
  #behind: Behind[] | undefined
  /** Which of them is next. */
  #behindAt = 0
  #heldBytes = 0
  /** Drops the message that waits to be unpacked. */
  #drop: (() => void) | undefined
  #listener: CallerListener | undefined
  #timer: NodeJS.Timeout | undefined
  #drained: (() => void) | undefined

  constructor(host: CallHost, stream: CallStream, head: RequestHead, method: Method) {
    this.#host = host
    this.#stream = stream
    this.head = head
    this.#method = method
    this.#limits = limitsOf(host, method)
    this.#reader = new MessageReader(this, this.#limits)
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
    this.#end()
    if (!this.#stream.answer(frame)) this.#stream.refuse(trailersOnly(MESSAGES.unsent))
  }

  /**
   * Sends one of several messages; false: wait for `untilDrained` before the next. When the caller does not take them and there is no
   * memory left for those that wait, the call is over.
   */
  send(frame: Buffer): boolean {
    if (this.isOver) return true
    if (!this.#answering) {
      this.#answering = true
      this.#stream.open()
    }
    const written = this.#stream.write(frame)
    if (written === 'refused') this.cancel(new Fault('FUNCTION_OUTPUT_TOO_LARGE', NO_ROOM))
    return written !== 'full'
  }

  /**
   * Resolves when there is room again after a `send` that said false; rejects with the fault when the call is over first.
   *
   * @param heldBytes - What the source of the messages may hold meanwhile: it counts.
   */
  async untilDrained(heldBytes = 0): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#drained = resolve
    const { budget } = this.#host
    budget.force(heldBytes)
    if (!this.isOver) await promise
    budget.give(heldBytes)
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
    // What came in the same bytes as the last one waits here, what comes later in the stream.
    this.#behind ??= []
    this.#stream.pause()
  }

  resume(): void {
    if (!this.isOver) this.#guard(() => this.#goOn())
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
    // The one before it, in the same bytes, may have ended the call.
    if (this.isOver) return
    if (this.#behind !== undefined) this.#queue(this.#behind, bytes, compressed)
    else if (compressed) this.#inflate(bytes)
    else this.#take(bytes)
  }

  #queue(behind: Behind[], bytes: Buffer, compressed: boolean): void {
    if (this.#consumer === undefined) throw new StatusError(MESSAGES.several)
    behind.push({ bytes: this.#hold(bytes, BEHIND_BYTES), compressed })
  }

  #take(bytes: Buffer): void {
    if (this.#consumer !== undefined) return this.#consumer.message(bytes)
    if (this.#message !== undefined) throw new StatusError(MESSAGES.several)
    this.#message = this.#hold(bytes)
  }

  #inflate(bytes: Buffer): void {
    const { inflater, budget } = this.#host
    const { busy } = inflater
    const small = bytes.length <= HELD_BYTES_MIN
    const overBytes = budget.bytes + bytes.length - budget.bytesMax
    if (busy && overBytes > HELD_BYTES_MIN) throw new StatusError(MESSAGES.full)
    this.pause()
    // Being unpacked, it may outlive its call.
    budget.force(bytes.length)
    // A small one would hold on to all that was read with it.
    const kept = busy && small ? Buffer.from(bytes) : bytes
    const { messageBytesMax } = this.#limits
    this.#drop = inflater.inflate(this.head.encoding, kept, messageBytesMax, (result) => {
      this.#drop = undefined
      budget.give(bytes.length)
      if (result === undefined || this.isOver) return
      if (!Buffer.isBuffer(result)) return this.fail(result)
      this.#guard(() => this.#goOn(result))
    })
  }

  /** Takes the messages that wait, until one of them has the others wait again. */
  #goOn(unpacked?: Buffer): void {
    const behind = this.#behind ?? []
    this.#behind = undefined
    if (unpacked !== undefined) this.#take(unpacked)
    while (this.#behind === undefined && !this.isOver) {
      const one = behind[this.#behindAt]
      if (one === undefined) {
        this.#behindAt = 0
        return this.#stream.resume()
      }
      this.#behindAt += 1
      this.#giveBack(one.bytes.length + BEHIND_BYTES)
      this.message(one.bytes, one.compressed)
    }
    // The others keep their places: to queue them anew for each would take the square of the time.
    if (!this.isOver) this.#behind = behind
  }

  /** The request is complete. */
  #run(): void {
    if (this.#reader.partial) throw new StatusError(MESSAGES.cut)
    const method = this.#method
    if (method.kind === 'stream') return this.#consumer?.end()
    if (this.#message === undefined) throw new StatusError(MESSAGES.none)
    this.#state = 'running'
    // From here on a small one is on its way.
    if (this.#heldBytes <= HELD_BYTES_MIN) this.#giveBack()
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

  #giveBack(bytes = this.#heldBytes): void {
    if (bytes === 0) return
    this.#host.budget.give(bytes)
    this.#heldBytes -= bytes
  }

  /**
   * A message that waits: for its turn, or for the rest of its request, which may never come.
   *
   * @throws StatusError `RESOURCE_EXHAUSTED`
   */
  #hold(message: Buffer, besideBytes = 0): Buffer {
    const { budget } = this.#host
    const bytes = message.length + besideBytes
    const small = message.length <= HELD_BYTES_MIN
    if (small) {
      // The usual call: whole at once.
      if (this.#stream.remoteEnded && besideBytes === 0) return message
      // Nearly all are followed by their end, and not worth a place in the line of those that wait; but callers can send very many.
      if (budget.bytes > budget.bytesMax) throw new StatusError(MESSAGES.full)
      budget.force(bytes)
    } else if (!budget.take(bytes)) throw new StatusError(MESSAGES.full)
    this.#heldBytes += bytes
    // A small one would hold on to all that was read with it.
    return small ? Buffer.from(message) : message
  }

  #end(): void {
    this.#state = 'over'
    this.#host.calls.delete(this)
    this.#reader.close()
    this.#drop?.()
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

/** What a message that waits takes beside its bytes: many may have none. */
const BEHIND_BYTES = 256
/** Messages up to this are counted only until their request has come: most are on their way at once. */
const HELD_BYTES_MIN = 16 * 1024

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

function limitsOf(host: CallHost, method: Method): MessageLimits {
  if (method.kind === 'message') return host
  return { budget: host.budget, messageBytesMax: method.messageBytesMax }
}

/** The header of an answer that has no message. */
export function trailersOnly(status: Status): string[] {
  return [':status', '200', 'content-type', 'application/grpc', ...trailersOf(status)]
}
