import type { Readable } from 'node:stream'
import type { Body, Invocation, Invoker, Result } from '#agent/invoke/index.ts'
import type { BlockLease, BodyBudget } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { guessContentType, guessStreamContentType } from '../content-type.ts'
import { faultOf } from '../fault-answer.ts'
import type { ProxyLog } from '../log.ts'
import { requestIdOf } from '../request-id.ts'
import { faultAnswer } from './answer-fault.ts'
import { type AnswerHead, fieldLines } from './answer-head.ts'
import { CallMemory, STREAM_BYTES } from './call-memory.ts'
import type { CutOffLog } from './cut-off-log.ts'
import { Caller } from '../caller.ts'
import { type AnswerFields, readAnswerFields, type RequestFields } from './fields.ts'
import type { Framing } from './framing.ts'
import { HeldBody } from './held-body.ts'
import {
  type BodyTarget,
  bodyTooLarge,
  CountedBody,
  GatheredBody,
  noMemory,
  tooManyBodies,
} from './request-body.ts'
import type { RequestHead } from './request-parser.ts'
import { isDecodable, readDeadlineMs, readTarget } from './target.ts'

/** Up to here a body is read whole before the function is called; above it is streamed. */
const COLLECT_BYTES_MAX = 64 * 1024
/** Answers below this are not counted: most leave at once. */
const ANSWER_BYTES_MIN = 16 * 1024

export interface CallContext {
  readonly invoker: Invoker
  readonly bodyBytesMax: number
  readonly log: ProxyLog
  /** Bodies take memory before any limit of a function applies. */
  readonly budget: BodyBudget
  readonly cutOffs: CutOffLog
}

/** What a call needs of its connection. */
export interface CallConnection {
  /** Asks for the body, when the caller waits for `100 Continue`. */
  continue(): void
  /** Where the body shall go. */
  readTo(target: BodyTarget): void
  stream(bytesMax: number): Readable & BodyTarget
  /** Goes on reading, or stops. */
  setFlowing(flowing: boolean): void
  /** Sends the answer, and with it the call has ended. `sent`: the kernel has it, or never will. */
  answer(head: AnswerHead, body: Buffer, sent?: () => void): void
  /**
   * As `answer`; when the body has been handed over, the call is told to `finish`.
   *
   * @param onBehind - told when the caller takes less than comes, and when it has caught up
   */
  answerStream(head: AnswerHead, body: Readable, onBehind: (behind: boolean) => void): void
  /** Ends the connection at once. */
  destroy(): void
}

/** One request on its way to a function and back. */
export class HttpCall {
  readonly #context: CallContext
  readonly #connection: CallConnection
  readonly #head: RequestHead
  readonly #fields: RequestFields
  readonly #framing: Framing
  readonly #caller = new Caller()
  readonly #requestId: string
  #stream: Readable | undefined
  /** A function's answer that waits for its first bytes. */
  #awaited: Readable | undefined
  #bodyFault: Fault | undefined
  readonly #memory: CallMemory
  #lease: BlockLease | undefined
  /** The caller takes less of a streamed answer than comes. */
  #behind = false
  #state: 'open' | 'streaming' | 'over' = 'open'

  constructor(
    context: CallContext,
    connection: CallConnection,
    head: RequestHead,
    fields: RequestFields,
    framing: Framing,
  ) {
    this.#context = context
    this.#connection = connection
    this.#head = head
    this.#fields = fields
    this.#framing = framing
    this.#requestId = requestIdOf(fields.requestId)
    this.#memory = new CallMemory(context.budget)
  }

  /** For its turn: it is not the caller who is waited for. */
  get waits(): boolean {
    return this.#memory.waits
  }

  start(): void {
    const { invoker, bodyBytesMax } = this.#context
    const deadlineMs = readDeadlineMs(this.#fields.deadline)
    if (deadlineMs === 'invalid') {
      return this.#refuse('REQUEST_INVALID', 'X-Shoal-Deadline-Ms: milliseconds, at least 1')
    }
    const { path, query } = readTarget(this.#head.target)
    if (!isDecodable(path)) return this.#refuse('REQUEST_INVALID', 'a broken escape in the path')
    const target = invoker.match(path)
    if (target === undefined) {
      return this.#refuse('FUNCTION_UNKNOWN', `no function answers at /${path}`)
    }
    const { contentLength } = this.#framing
    if (contentLength > bodyBytesMax) return this.#fail(bodyTooLarge(bodyBytesMax))
    const { background } = this.#fields
    this.#readBody((body) => {
      const invocation: Invocation = {
        fn: target.fn,
        method: this.#head.method,
        path: target.rest,
        query,
        headers: this.#fields.forFunction,
        body,
        lease: this.#lease,
        protocol: background ? 'async' : 'http',
        requestId: this.#requestId,
        deadlineMs,
      }
      if (background) this.#accept(invocation)
      else this.#invoke(invocation)
    })
  }

  /** The caller has gone: cancels the function's work, and there is nobody to answer. */
  abandon(): void {
    if (this.#state === 'over') return
    this.#end()
    this.#caller.leave(new Fault('CALLER_GONE', 'the caller has gone'))
    this.#awaited?.destroy()
    this.#stream?.destroy()
  }

  /** The proxy stops: cancels the function's work and tells the caller why, if it still can. */
  cancel(fault: Fault): void {
    const before = this.#state
    this.#fail(fault)
    if (before !== 'over') this.#caller.leave(fault)
    if (before === 'streaming') this.#connection.destroy()
  }

  /** The streamed answer has been handed to the connection. */
  finish(): void {
    this.#end()
    this.#stream?.destroy()
  }

  /** The streamed answer broke in the middle, and its caller has been left with what there was. */
  brokeOff(error: Error | null): void {
    const code = error instanceof Fault ? error.code : undefined
    const { path } = readTarget(this.#head.target)
    const fn = this.#context.invoker.match(path)?.fn
    this.#context.cutOffs.note({ fn, code, err: error, request: this.#requestId })
  }

  #readBody(call: (body: Body) => void): void {
    const { contentLength, chunked } = this.#framing
    const { background } = this.#fields
    if (!chunked && contentLength === 0) return call(NOTHING)
    const { bodyBytesMax } = this.#context
    const done = (body: Buffer | Fault, lease?: BlockLease): void => {
      // A call in the background keeps its body for as long as it likes.
      if (!background) this.#lease = lease
      if (this.#state !== 'open') return
      if (Buffer.isBuffer(body)) call(body)
      else this.#fail(body)
    }
    if (!chunked && contentLength <= COLLECT_BYTES_MAX) {
      return this.#inTurn(contentLength, () => {
        const body = new CountedBody(contentLength, done)
        this.#connection.readTo(body)
        return body
      })
    }
    if (!background) {
      const bytes = chunked ? STREAM_BYTES : Math.min(STREAM_BYTES, 2 * contentLength)
      return this.#inTurn(bytes, () => {
        const stream = this.#connection.stream(bodyBytesMax)
        this.#stream = stream
        stream.on('close', () => this.#holdStream(this.#behind))
        call(stream)
        return stream
      })
    }
    // A call in the background outlives the connection, so its body must be here before the 202.
    const bytesMax = chunked ? bodyBytesMax : contentLength
    if (!this.#memory.take(bytesMax)) return this.#fail(tooManyBodies())
    this.#connection.continue()
    this.#connection.readTo(new GatheredBody(bytesMax, done))
  }

  /** Receives the body as soon as there is memory for it; until then the caller is not read from. */
  #inTurn(bytes: number, receive: () => BodyTarget): void {
    if (this.#memory.take(bytes)) {
      this.#connection.continue()
      receive()
      return
    }
    const held = new HeldBody(this.#connection)
    this.#connection.readTo(held)
    const taken = (): void => {
      this.#connection.continue()
      held.open(receive())
    }
    this.#memory.wait(bytes, taken, () => this.#fail(noMemory()))
  }

  #accept(invocation: Invocation): void {
    const accepted = (): void => {
      if (this.#state !== 'open') return
      this.#send(202, 'content-length: 0\r\n', false, NOTHING)
    }
    this.#context.invoker.accept(invocation).then(accepted, (error: unknown) => this.#fail(error))
  }

  #invoke(invocation: Invocation): void {
    this.#stream?.on('error', (error) => {
      const fault = faultOf(error, this.#requestId, this.#context.log)
      this.#bodyFault = fault
      this.#caller.leave(fault)
    })
    this.#context.invoker.start(
      invocation,
      this.#caller,
      (result) => this.#answer(result),
      // A body that broke off is the cause, whatever the function made of it.
      (error) => this.#fail(this.#bodyFault ?? error),
    )
  }

  #answer(result: Result): void {
    this.#lease?.end()
    if (this.#state !== 'open') return destroyBody(result.body)
    const { status, body } = result
    if (!(status >= 200 && status <= 599)) {
      destroyBody(body)
      return this.#refuse('FUNCTION_BAD_ANSWER', `the function answered with status ${status}`)
    }
    const fields = readAnswerFields(result.headers)
    let lines: string
    try {
      lines = fieldLines(fields.headers)
    } catch (error) {
      destroyBody(body)
      const message = error instanceof Error ? error.message : String(error)
      const text = `the function's header cannot be sent: ${message}`
      return this.#refuse('FUNCTION_BAD_ANSWER', text)
    }
    if (isBodiless(status) || this.#head.method === 'HEAD') {
      this.#answerBodiless(status, lines, fields, body)
    } else if (Buffer.isBuffer(body)) {
      this.#send(status, lines + wholeLines(fields, body), fields.dated, body)
    } else if (fields.typed) {
      this.#sendStream(status, lines, fields, body)
    } else {
      this.#answerUntyped(status, lines, fields, body)
    }
  }

  /** An answer that has no body by its kind (RFC 9110 section 6.4.1), whatever the function gave. */
  #answerBodiless(status: number, lines: string, fields: AnswerFields, body: Body): void {
    let more = ''
    if (status === 205) more = 'content-length: 0\r\n'
    else if (status !== 204) {
      const { contentLength } = fields
      if (Buffer.isBuffer(body) && body.length > 0) more = lengthLine(body)
      else if (contentLength !== undefined && /^\d+$/.test(contentLength)) {
        more = `content-length: ${contentLength}\r\n`
      }
      if (status !== 304 && !fields.typed && Buffer.isBuffer(body)) {
        more += typeLine(guessContentType(body))
      }
    }
    destroyBody(body)
    this.#send(status, lines + more, fields.dated, NOTHING)
  }

  /** The first chunk tells the content type. */
  #answerUntyped(status: number, lines: string, fields: AnswerFields, body: Readable): void {
    this.#awaited = body
    const stop = (): void => {
      this.#awaited = undefined
      body.off('readable', onReadable)
      body.off('error', onError)
      body.off('close', onClose)
    }
    const onError = (error: Error): void => {
      stop()
      this.#fail(error)
    }
    const onClose = (): void => onError(new Fault('FUNCTION_EXITED', 'the answer broke off'))
    const onReadable = (): void => {
      const first: Buffer | null = body.read()
      stop()
      if (this.#state !== 'open') return destroyBody(body)
      if (first !== null) body.unshift(first)
      const type = typeLine(guessStreamContentType(first ?? NOTHING))
      this.#sendStream(status, lines + type, fields, body)
    }
    body.on('readable', onReadable)
    body.on('error', onError)
    body.on('close', onClose)
  }

  #refuse(code: 'REQUEST_INVALID' | 'FUNCTION_UNKNOWN' | 'FUNCTION_BAD_ANSWER', message: string) {
    this.#fail(new Fault(code, message))
  }

  #fail(error: unknown): void {
    if (this.#state !== 'open') return
    this.#end()
    const fault = faultOf(error, this.#requestId, this.#context.log)
    const { head, body } = faultAnswer(fault, this.#requestId)
    this.#connection.answer(head, this.#head.method === 'HEAD' ? NOTHING : body)
    this.#stream?.destroy()
  }

  #send(status: number, lines: string, dated: boolean, body: Buffer): void {
    this.#end()
    this.#connection.answer(
      { status, lines: lines + this.#idLine(), dated },
      body,
      this.#count(body),
    )
    this.#stream?.destroy()
  }

  #sendStream(status: number, lines: string, { dated }: AnswerFields, body: Readable): void {
    this.#state = 'streaming'
    this.#holdStream(false)
    const head = { status, lines: lines + this.#idLine(), dated }
    this.#connection.answerStream(head, body, (behind) => this.#holdStream(behind))
  }

  #holdStream(behind: boolean): void {
    this.#behind = behind
    if (this.#state === 'streaming') this.#memory.stream(this.#stream?.closed === false, behind)
  }

  #idLine(): string {
    return `x-request-id: ${this.#requestId}\r\n`
  }

  /** Counts an answer that waits for its caller to take it. */
  #count({ length }: Buffer): (() => void) | undefined {
    if (length < ANSWER_BYTES_MIN) return undefined
    const { budget } = this.#context
    budget.force(length)
    return () => budget.give(length)
  }

  #end(): void {
    this.#state = 'over'
    this.#memory.giveBack()
  }
}

const NOTHING = Buffer.alloc(0)

function isBodiless(status: number): boolean {
  return status === 204 || status === 205 || status === 304
}

function wholeLines(fields: AnswerFields, body: Buffer): string {
  return fields.typed ? lengthLine(body) : typeLine(guessContentType(body)) + lengthLine(body)
}

function lengthLine(body: Buffer): string {
  return `content-length: ${body.length}\r\n`
}

function typeLine(type: string): string {
  return `content-type: ${type}\r\n`
}

function destroyBody(body: Body): void {
  if (!Buffer.isBuffer(body)) body.destroy()
}
