import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { withReadBuffer } from '#agent/sockets/index.ts'
import type { Fault } from '#shared/fault.ts'
import { refusalAnswer } from './answer-fault.ts'
import type { AnswerHead } from './answer-head.ts'
import type { CallConnection, HttpCall } from './call.ts'
import { readRequestFields, type RequestFields } from './fields.ts'
import { type Framing, readFraming } from './framing.ts'
import type { ConnectionHost } from './connection-host.ts'
import type { ConnectionState } from './connection-state.ts'
import { Intake } from './intake.ts'
import { Linger } from './linger.ts'
import { Outlet } from './outlet.ts'
import { PeerProbe } from './peer-probe.ts'
import { bodyBuffer, READ_BUFFER } from './read-buffer.ts'
import { type BodySource, type BodyTarget, DrainedBody, StreamedBody } from './request-body.ts'
import type { RequestHead, RequestParser } from './request-parser.ts'
import { Stillness } from './stillness.ts'

/**
 * One connection: requests come in, one at a time, and answers go out in their order.
 *
 *     idle -> head -> (counted | chunked) -> read -> idle | lingering -> closed
 *
 * A request that comes before the last one has been answered waits, and with it the socket: nothing is read ahead but
 * what one read has brought already. An answer may be sent before its request has been read; the rest is drained.
 */
export class Connection implements CallConnection, BodySource {
  readonly #host: ConnectionHost
  readonly #closed: () => void
  readonly #socket: Socket
  readonly #intake: Intake
  readonly #outlet: Outlet
  #state: ConnectionState = 'idle'
  #dueAtMs: number
  #parser: RequestParser | undefined
  #call: HttpCall | undefined
  #body: BodyTarget | undefined
  /** Where the socket reads to: `READ_BUFFER`, or directly into a body. */
  #reading: Buffer = READ_BUFFER
  /** Of a counted body. */
  #bytesLeft = 0
  #consuming = false
  #continueOwed = false
  #chunkedAnswers = true
  /** This answer is the connection's last. */
  #last = false
  /** In state `lingering`. */
  #end: Linger | undefined
  readonly #probe: PeerProbe
  readonly #stillness = new Stillness()

  /** @param closed - called once, when nothing is left of it */
  constructor(accepted: Socket, host: ConnectionHost, closed: () => void) {
    this.#host = host
    this.#closed = closed
    this.#dueAtMs = host.nowMs + host.times.idleTimeoutMs
    this.#socket = withReadBuffer(accepted, {
      buffer: () => this.#nextBuffer(),
      read: (bytes) => this.#read(bytes),
      allowHalfOpen: true,
    })
    this.#intake = new Intake(this.#socket)
    this.#outlet = new Outlet(this.#socket, host.times.idleTimeoutMs)
    this.#probe = new PeerProbe(this.#outlet)
    this.#socket.on('drain', () => this.#advance())
    this.#socket.on('end', () => this.#onEnd())
    // An error is always followed by `close`, which says enough.
    this.#socket.on('error', () => undefined)
    this.#socket.on('close', () => this.#onClose())
  }

  /** To be called now and then: ends what has taken too long. */
  sweep(nowMs: number): void {
    const { requestTimeoutMs } = this.#host.times
    if (this.#outlet.isStalled(nowMs, requestTimeoutMs)) return this.destroy()
    const { bytesRead, writableLength } = this.#socket
    const deaf = this.#call !== undefined && this.#intake.stopped && writableLength === 0
    this.#probe.look(deaf, bytesRead, nowMs)
    // Not from who waits for its turn: it has been promised nothing, and may wait to be asked for its body.
    const awaited = !this.#intake.held && this.#call?.waits !== true
    const wants = (this.#state === 'counted' || this.#state === 'chunked') && awaited
    const still = this.#stillness.look(wants, bytesRead, this.#host.budget.short)
    if (still !== undefined && this.#call !== undefined) return this.#call.cancel(still)
    const dueAtMs = this.#end?.dueAtMs ?? this.#dueAtMs
    if (nowMs < dueAtMs || (this.#state === 'idle' && this.sending)) return
    switch (this.#state) {
      case 'head':
      case 'counted':
      case 'chunked':
        return this.#refuse(408, 'ERR_HTTP_REQUEST_TIMEOUT')
      case 'idle':
      case 'lingering':
        return this.destroy()
      case 'read':
      case 'closed':
    }
  }

  /** The proxy is stopping: ends the connection, or makes its next answer the last. */
  shutDown(): void {
    if (this.#state === 'idle') this.#linger()
  }

  cancel(fault: Fault): void {
    this.#call?.cancel(fault)
  }

  /** Something of an answer waits for the peer to take it. */
  get sending(): boolean {
    return this.#socket.writableLength > 0
  }

  destroy(): void {
    // An orderly end would say that the answer is whole.
    if (this.sending || this.#outlet.streaming) this.#socket.resetAndDestroy()
    else this.#socket.destroy()
  }

  setFlowing(flowing: boolean): void {
    // A body that is here cannot hold the connection, however late it is read: what comes next is none of it.
    this.#intake.hold(!flowing && this.#state !== 'read')
  }

  continue(): void {
    if (!this.#continueOwed) return
    this.#continueOwed = false
    this.#outlet.continue()
  }

  readTo(target: BodyTarget): void {
    // A body that is here already comes from who has held it.
    if (this.#state !== 'read') this.#body = target
  }

  stream(bytesMax: number): StreamedBody {
    const body = new StreamedBody(this, bytesMax)
    this.readTo(body)
    return body
  }

  answer(head: AnswerHead, body: Buffer, sent?: () => void): void {
    this.#outlet.whole(head, this.#isLast(), body, sent)
    this.#callOver()
  }

  answerStream(head: AnswerHead, body: Readable, onBehind: (behind: boolean) => void): void {
    // Without chunks only the connection's end can tell where the body ends.
    if (!this.#chunkedAnswers) this.#last = true
    this.#outlet.stream(head, this.#isLast(), body, this.#chunkedAnswers, onBehind, (whole) => {
      if (!whole) return this.#cutOff(body.errored)
      this.#call?.finish()
      this.#callOver()
    })
  }

  #isLast(): boolean {
    // Who waits for `100 Continue` in vain may send the body all the same, or not: nobody can tell.
    if (this.#host.closing || this.#continueOwed) this.#last = true
    // Nor would the rest of such a body be read to its end.
    if (this.#bytesLeft > this.#host.bodyBytesMax) this.#last = true
    return this.#last
  }

  /** Its answer has been handed to the socket. */
  #callOver(): void {
    this.#call = undefined
    this.#host.ended()
    this.#probe.stop()
    if (this.#state === 'counted' || this.#state === 'chunked') {
      if (this.#last) return this.#linger()
      this.#body = new DrainedBody(this.#host.bodyBytesMax, () => this.#linger())
      this.setFlowing(true)
    } else this.#advance()
  }

  /** Goes on to the next request when this one is done with. */
  #advance(): void {
    if (this.#state !== 'read' || this.#call !== undefined) return
    if (this.#last || this.#host.closing) return this.#linger()
    // A peer that sends and does not read gets no further.
    if (this.#socket.writableNeedDrain) return
    this.#state = 'idle'
    this.#dueIn(this.#host.times.idleTimeoutMs)
    if (this.#consuming) return
    const waiting = this.#intake.takeWaiting()
    if (waiting !== undefined) this.#consume(waiting, 0, waiting.length)
    this.#intake.goOn()
  }

  /** Asked for when a read has been consumed, not when the next is due: in state `read` that brings another request. */
  #nextBuffer(): Buffer {
    const starts = this.#state === 'idle' || this.#state === 'head' || this.#state === 'read'
    const body = this.#state === 'counted' ? this.#body?.room() : undefined
    return (this.#reading = starts ? this.#host.startBuffer : bodyBuffer(body, this.#bytesLeft))
  }

  #read(bytes: number): boolean {
    if (this.#end !== undefined) this.#end.read(bytes)
    else if (this.#reading.buffer === READ_BUFFER.buffer) this.#consume(READ_BUFFER, 0, bytes)
    else if (this.#state === 'counted') {
      this.#bytesLeft -= bytes
      this.#body?.filled(bytes)
      if (this.#bytesLeft === 0) this.#bodyRead()
    }
    return true
  }

  #consume(buffer: Buffer, start: number, end: number): void {
    this.#consuming = true
    let at = start
    while (at < end) {
      switch (this.#state) {
        case 'idle':
          this.#begin()
          break
        case 'head':
          at = this.#readHead(buffer, at, end)
          break
        case 'counted':
          at = this.#readCounted(buffer, at, end)
          break
        case 'chunked':
          at = this.#readChunks(buffer, at, end)
          break
        case 'read':
          this.#intake.wait(buffer.subarray(at, end))
          at = end
          break
        case 'lingering':
        case 'closed':
          at = end
      }
    }
    this.#consuming = false
    if (this.#state === 'lingering') this.#giveParser()
  }

  #begin(): void {
    this.#state = 'head'
    this.#parser = this.#host.parsers.take()
    this.#dueIn(this.#host.times.headerTimeoutMs)
  }

  #readHead(buffer: Buffer, start: number, end: number): number {
    const parser = this.#parser
    if (parser === undefined) return end
    const at = parser.readHead(buffer, start, end)
    const { broken, head } = parser
    if (broken !== undefined) {
      this.#refuse(broken.status, broken.reason)
      return end
    }
    if (head === undefined) return at
    const fields = readRequestFields(head.fields)
    const framing = readFraming(head, fields)
    if ('reason' in framing) this.#refuse(framing.status, framing.reason)
    else this.#open(head, fields, framing)
    return at
  }

  #open(head: RequestHead, fields: RequestFields, framing: Framing): void {
    const { chunked, contentLength } = framing
    this.#state = chunked ? 'chunked' : contentLength > 0 ? 'counted' : 'read'
    this.#bytesLeft = contentLength
    this.#last = !head.keepAlive
    this.#chunkedAnswers = head.version === 11
    this.#continueOwed =
      fields.expect !== undefined && head.version === 11 && this.#state !== 'read'
    if (!chunked) this.#giveParser()
    if (this.#state !== 'read') this.#dueIn(this.#host.times.requestTimeoutMs)
    const call = this.#host.opened(this, head, fields, framing)
    this.#call = call
    this.#host.serve(call)
  }

  #readCounted(buffer: Buffer, start: number, end: number): number {
    const stop = Math.min(end, start + this.#bytesLeft)
    this.#bytesLeft -= stop - start
    this.#body?.bytes(buffer, start, stop)
    if (this.#bytesLeft === 0) this.#bodyRead()
    return stop
  }

  #readChunks(buffer: Buffer, start: number, end: number): number {
    const parser = this.#parser
    if (parser === undefined) return end
    const at = parser.readChunks(buffer, start, end, (bytes, from, to) => {
      this.#body?.bytes(bytes, from, to)
    })
    // The body may have made the connection end.
    if (this.#state !== 'chunked') return end
    if (parser.broken !== undefined) {
      this.#refuse(parser.broken.status, parser.broken.reason)
      return end
    }
    if (parser.complete) {
      this.#giveParser()
      this.#bodyRead()
    }
    return at
  }

  #bodyRead(): void {
    if (this.#state !== 'counted' && this.#state !== 'chunked') return
    this.#state = 'read'
    this.#continueOwed = false
    const body = this.#body
    this.#body = undefined
    this.setFlowing(true)
    body?.end()
    this.#advance()
  }

  /** What the parser refuses, or time: the end of the connection. */
  #refuse(status: number, reason: string): void {
    const { streaming } = this.#outlet
    // A request that has had its answer gets no second one.
    const tells = this.#call !== undefined || this.#state === 'head'
    this.#abandonCall()
    if (streaming) return this.destroy()
    const refuse = (): void => {
      if (this.#state === 'closed') return
      const { head, body } = refusalAnswer(status, reason)
      if (tells) this.#outlet.whole(head, true, body)
      this.#linger()
    }
    if (!this.#host.tarpit.holds(refuse, this.#host.nowMs)) return refuse()
    this.#state = 'lingering'
    this.#dueAtMs = Number.POSITIVE_INFINITY
    if (!this.#consuming) this.#giveParser()
    this.setFlowing(false)
  }

  /** The answer's body broke off: the end of the connection is the only way left to say so. */
  #cutOff(error: Error | null): void {
    this.#call?.brokeOff(error)
    this.#abandonCall()
    // Without chunks an orderly end would say that the answer is whole.
    if (this.#chunkedAnswers) this.#linger()
    else this.#socket.resetAndDestroy()
  }

  /** Ends our side and waits for the peer to end its own. */
  #linger(): void {
    if (this.#end !== undefined) return
    this.#state = 'lingering'
    if (!this.#consuming) this.#giveParser() // Not while it reads.
    this.#intake.takeWaiting()
    this.#body = undefined
    this.#end = new Linger(this.#socket, this.#host, () => this.destroy())
    this.setFlowing(true)
  }

  /** The peer sends no more; whether it still listens, nobody can tell. */
  #onEnd(): void {
    switch (this.#state) {
      case 'idle':
        return this.#linger()
      case 'head':
        return this.#refuse(400, 'HPE_INVALID_EOF_STATE')
      case 'read':
        this.#last = true
        return this.#call === undefined ? this.#linger() : this.#probe.start()
      case 'counted':
      case 'chunked':
        return this.#call === undefined ? this.#linger() : this.destroy()
      case 'lingering':
      case 'closed':
    }
  }

  #onClose(): void {
    this.#state = 'closed'
    this.#giveParser()
    this.#intake.takeWaiting()
    this.#outlet.close()
    this.#abandonCall()
    this.#closed()
  }

  #abandonCall(): void {
    this.#probe.stop()
    const call = this.#call
    if (call === undefined) return
    this.#call = undefined
    call.abandon()
    this.#host.ended()
  }

  #giveParser(): void {
    if (this.#parser !== undefined) this.#host.parsers.give(this.#parser)
    this.#parser = undefined
  }

  #dueIn(ms: number): void {
    this.#dueAtMs = this.#host.nowMs + ms
  }
}
