import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline, type Readable } from 'node:stream'
import type { Body, Invocation, Invoker, Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { guessContentType, guessStreamContentType } from '../content-type.ts'
import { faultOf } from '../fault-answer.ts'
import type { ProxyLog } from '../log.ts'
import { requestIdOf } from '../request-id.ts'
import { answerFault } from './answer-fault.ts'
import { type AnswerFields, readAnswerFields, readRequestFields } from './fields.ts'
import { bodyTooLarge, collectRequest, drainRequest, LimitedBody } from './limited-body.ts'
import { readTarget } from './target.ts'

/** Up to here a body is read whole before the function is called; above it is streamed. */
const COLLECT_BYTES_MAX = 64 * 1024

const NOTHING = Buffer.alloc(0)

export interface CallContext {
  readonly invoker: Invoker
  readonly bodyBytesMax: number
  readonly headerFieldsMax: number
  readonly log: ProxyLog
  /** Called once when the answer has been handed to the connection, or the connection has gone. */
  onEnd(call: HttpCall): void
}

/** One request on its way to a function and back. */
export class HttpCall {
  readonly request: IncomingMessage
  readonly #response: ServerResponse
  readonly #context: CallContext
  readonly #abort = new AbortController()
  #requestId = ''
  /** The caller waits for `100 Continue` before it sends the body. */
  #continueOwed: boolean
  #hasBody = false
  #stream: LimitedBody | undefined
  #ended = false

  constructor(
    context: CallContext,
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
  ) {
    this.#context = context
    this.request = request
    this.#response = response
    this.#continueOwed = expectsContinue
  }

  start(): void {
    const { invoker, bodyBytesMax, headerFieldsMax } = this.#context
    const fields = readRequestFields(this.request.rawHeaders)
    this.#requestId = requestIdOf(fields.requestId)
    this.#hasBody = fields.chunked || fields.contentLength > 0
    if (this.request.rawHeaders.length > headerFieldsMax * 2) {
      return this.#refuse('REQUEST_INVALID', `more than ${headerFieldsMax} header fields`)
    }
    const deadlineMs = readDeadlineMs(fields.deadline)
    if (deadlineMs === 'invalid') {
      return this.#refuse('REQUEST_INVALID', 'X-Shoal-Deadline-Ms: milliseconds, at least 1')
    }
    const { path, query } = readTarget(this.request.url ?? '')
    const target = invoker.match(path)
    if (target === undefined) {
      return this.#refuse('FUNCTION_UNKNOWN', `no function answers at /${path}`)
    }
    if (fields.contentLength > bodyBytesMax) return this.#fail(bodyTooLarge(bodyBytesMax))
    const call = (body: Body): void => {
      const invocation: Invocation = {
        fn: target.fn,
        method: this.request.method ?? 'GET',
        path: target.rest,
        query,
        headers: fields.forFunction,
        body,
        protocol: fields.background ? 'async' : 'http',
        requestId: this.#requestId,
        deadlineMs,
      }
      if (fields.background) this.#accept(invocation)
      else this.#invoke(invocation)
    }
    this.#readBody(fields.contentLength, fields.chunked, fields.background, call)
  }

  /** The caller has gone: cancels the function's work, and there is nobody to answer. */
  abandon(): void {
    if (this.#ended) return
    this.#end()
    this.#abort.abort(new Fault('CALLER_GONE', 'the caller has gone'))
  }

  /** The proxy stops: cancels the function's work and tells the caller why, if it still can. */
  cancel(fault: Fault): void {
    if (this.#ended) return
    if (this.#response.headersSent) {
      this.#response.destroy()
      this.#end()
    } else {
      this.#fail(fault)
    }
    this.#abort.abort(fault)
  }

  /** Makes this answer the connection's last. */
  closeAfterAnswer(): void {
    this.#response.shouldKeepAlive = false
  }

  /** Answers that the proxy is stopping, without calling anything. */
  refuse(fault: Fault): void {
    answerFault(this.#response, fault, requestIdOf(undefined), true)
    this.#end()
  }

  #readBody(
    contentLength: number,
    chunked: boolean,
    background: boolean,
    call: (body: Body) => void,
  ): void {
    if (!chunked && contentLength <= 0) return call(NOTHING)
    if (this.#continueOwed) {
      this.#continueOwed = false
      this.#response.writeContinue()
    }
    const { bodyBytesMax } = this.#context
    // A call in the background outlives the connection, so its body must be here before the 202.
    if (!background && (chunked || contentLength > COLLECT_BYTES_MAX)) {
      this.#stream = new LimitedBody(this.request, bodyBytesMax)
      return call(this.#stream)
    }
    collectRequest(this.request, chunked ? -1 : contentLength, bodyBytesMax, (body) => {
      if (this.#ended) return
      if (body instanceof Fault) return this.#fail(body)
      call(body)
    })
  }

  #accept(invocation: Invocation): void {
    const accepted = (): void => {
      if (this.#ended) return
      this.#response.writeHead(202, ['content-length', '0', 'x-request-id', this.#requestId])
      this.#response.end()
      this.#end()
    }
    this.#context.invoker.accept(invocation).then(accepted, (error: unknown) => this.#fail(error))
  }

  #invoke(invocation: Invocation): void {
    let bodyFault: Fault | undefined
    this.#stream?.on('error', (error) => {
      bodyFault = faultOf(error, this.#requestId, this.#context.log)
      this.#abort.abort(bodyFault)
    })
    this.#context.invoker.invoke(invocation, this.#abort.signal).then(
      (result) => this.#answer(result),
      // A body that broke off is the cause, whatever the function made of it.
      (error: unknown) => this.#fail(bodyFault ?? error),
    )
  }

  #answer(result: Result): void {
    if (this.#ended) return destroyBody(result.body)
    const { status, body } = result
    if (!(status >= 200 && status <= 599)) {
      destroyBody(body)
      return this.#refuse('FUNCTION_BAD_ANSWER', `the function answered with status ${status}`)
    }
    const fields = readAnswerFields(result.headers)
    try {
      if (this.request.method === 'HEAD' || status === 204 || status === 205 || status === 304) {
        this.#sendHead(status, fields, body)
      } else if (Buffer.isBuffer(body)) {
        this.#sendWhole(status, fields, body)
      } else if (fields.typed) {
        this.#sendStream(status, fields, body)
      } else {
        this.#sendUntypedStream(status, fields, body)
      }
    } catch (error) {
      destroyBody(body)
      this.#badHeader(error)
    }
  }

  /** An answer that has no body by its kind (RFC 9110 section 6.4.1), whatever the function gave. */
  #sendHead(status: number, fields: AnswerFields, body: Body): void {
    const { headers, contentLength } = fields
    if (status === 205) headers.push('content-length', '0')
    else if (status !== 204) {
      if (Buffer.isBuffer(body) && body.length > 0) {
        headers.push('content-length', String(body.length))
      } else if (contentLength !== undefined && /^\d+$/.test(contentLength)) {
        headers.push('content-length', contentLength)
      }
      if (status !== 304 && !fields.typed && Buffer.isBuffer(body)) {
        headers.push('content-type', guessContentType(body))
      }
    }
    destroyBody(body)
    headers.push('x-request-id', this.#requestId)
    this.#response.writeHead(status, headers)
    this.#response.end()
    this.#end()
  }

  #sendWhole(status: number, fields: AnswerFields, body: Buffer): void {
    const { headers } = fields
    if (!fields.typed) headers.push('content-type', guessContentType(body))
    headers.push('content-length', String(body.length), 'x-request-id', this.#requestId)
    this.#response.writeHead(status, headers)
    this.#response.end(body)
    this.#end()
  }

  #sendStream(status: number, fields: AnswerFields, body: Readable): void {
    fields.headers.push('x-request-id', this.#requestId)
    this.#response.writeHead(status, fields.headers)
    this.#response.flushHeaders()
    // A body that breaks off destroys the connection: the only way left to say that the answer is incomplete.
    pipeline(body, this.#response, () => this.#end())
  }

  /** The first chunk tells the content type. */
  #sendUntypedStream(status: number, fields: AnswerFields, body: Readable): void {
    const stop = (): void => {
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
      if (this.#ended) return destroyBody(body)
      if (first !== null) body.unshift(first)
      fields.headers.push('content-type', guessStreamContentType(first ?? NOTHING))
      try {
        this.#sendStream(status, fields, body)
      } catch (error) {
        destroyBody(body)
        this.#badHeader(error)
      }
    }
    body.on('readable', onReadable)
    body.on('error', onError)
    body.on('close', onClose)
    this.#abort.signal.addEventListener('abort', () => destroyBody(body), { once: true })
  }

  #badHeader(error: unknown): void {
    if (this.#response.headersSent) throw error
    const message = error instanceof Error ? error.message : String(error)
    this.#refuse('FUNCTION_BAD_ANSWER', `the function's header cannot be sent: ${message}`)
  }

  #refuse(code: 'REQUEST_INVALID' | 'FUNCTION_UNKNOWN' | 'FUNCTION_BAD_ANSWER', message: string) {
    this.#fail(new Fault(code, message))
  }

  #fail(error: unknown): void {
    if (this.#ended) return
    const fault = faultOf(error, this.#requestId, this.#context.log)
    answerFault(this.#response, fault, this.#requestId)
    this.#end()
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    if (this.#hasBody) {
      this.#stream?.destroy()
      drainRequest(this.request, this.#context.bodyBytesMax)
    }
    this.#context.onEnd(this)
  }
}

function destroyBody(body: Body): void {
  if (!Buffer.isBuffer(body)) body.destroy()
}

function readDeadlineMs(value: string | undefined): number | undefined | 'invalid' {
  if (value === undefined) return undefined
  return /^[1-9][0-9]{0,9}$/.test(value) ? Number(value) : 'invalid'
}
