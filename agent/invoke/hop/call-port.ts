import type { Socket } from 'node:net'
import { BlockLease } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import {
  END,
  FRAME,
  FRAME_LIMITS,
  ProtocolError,
  frameName,
  u16At,
  u32At,
} from '../frames/index.ts'
import { BufferSender, Connection, ResponseBody, StreamSender, keep } from '../link/index.ts'
import type { BodyFeed, ConnectionOwner, Slot } from '../link/index.ts'
import type { Body, Invocation, Invoker, Result } from '../model.ts'
import { faultBytes } from './fault-bytes.ts'
import { NAMES, WINDOW_BYTES, isProtocol } from './format.ts'
import { PortCall } from './port-call.ts'
import { readRequestLine } from './request-line.ts'

interface PortLog {
  error(fields: object, message: string): void
}

/** Lines of a head before its fields, and behind them: request id and protocol with their names. */
const FIRST_LINES = 3
const LAST_LINES = 4

/**
 * The agent's end of a worker: what comes out of it is the router's, with the same outcome as a call of a front in this process.
 *
 *     REQUEST --> (gathered) --> begun --RESPONSE--> answering --END--> over      their END or CANCEL frees the id
 *                     \------------\---ERROR------------\------------> over
 */
export class CallPort implements ConnectionOwner, BodyFeed {
  /** Called once, when the connection has ended; the calls in flight have been cancelled then. */
  onEnd: ((reason: string) => void) | undefined
  readonly #invoker: Invoker
  readonly #log: PortLog
  readonly #connection: Connection
  readonly #calls: (PortCall | undefined)[] = []

  constructor(socket: Socket, invoker: Invoker, log: PortLog) {
    this.#invoker = invoker
    this.#log = log
    this.#connection = new Connection(socket, this)
  }

  /** Tells the worker what runs here. */
  sendNames(): void {
    const names = Buffer.from(JSON.stringify(this.#invoker.names()))
    this.#connection.writer.control(NAMES, 0, names)
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
    switch (type) {
      case FRAME.request:
        return this.#onRequest(flags, id, buffer, start, end, owned)
      case FRAME.data:
        return this.#onData(flags, id, buffer, start, end, owned)
      case FRAME.window:
        return this.#calls[id]?.sender?.grant(u32At(buffer, start))
      case FRAME.cancel:
        return this.#onCancel(id)
      default:
        throw new ProtocolError(`${frameName(type)} from a worker`)
    }
  }

  ended({ reason }: { readonly reason: string }): void {
    for (const call of this.#calls) {
      if (call === undefined) continue
      call.receivedEnd = true
      this.#abandon(call)
    }
    this.#calls.length = 0
    this.onEnd?.(reason)
  }

  consumed(slot: Slot, bytes: number): void {
    const ungranted = bytes + WINDOW_BYTES - slot.grantedBytes
    if (ungranted < WINDOW_BYTES >>> 1) return
    slot.grantedBytes += ungranted
    this.#connection.writer.window(slot.id, ungranted)
  }

  /** Nobody reads the rest of a request's body: it is dropped as it comes. */
  dropped(): void {}

  #onRequest(
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    if (this.#calls[id] !== undefined) throw new ProtocolError(`REQUEST ${id} is in flight`)
    const head = start + 6
    const bodyStart = head + u16At(buffer, start + 4)
    if (bodyStart > end) throw new ProtocolError(`REQUEST ${id} is shorter than its head`)
    const lines = buffer.toString('utf8', head, bodyStart).split('\n')
    const call = new PortCall(id)
    call.sentEnd = false
    call.grantedBytes = WINDOW_BYTES
    call.receivedEnd = (flags & END) !== 0
    call.request = lines.at(1 - LAST_LINES)
    this.#calls[id] = call
    this.#connection.writer.inFlight += 1
    this.#receive(call, end - bodyStart)

    const { fn, method, wholeBytes } = readRequestLine(lines[0] ?? '')
    const deadlineMs = u32At(buffer, start)
    const protocol = protocolOf(lines.at(-1))
    const begin = (body: Body): void =>
      this.#begin(call, {
        fn,
        method,
        path: lines[1] ?? '',
        query: lines[2] ?? '',
        headers: lines.slice(FIRST_LINES, -LAST_LINES),
        body,
        lease: call.lease,
        protocol,
        requestId: call.request ?? '',
        deadlineMs: deadlineMs === 0 ? undefined : deadlineMs,
      })
    const chunk = keep(buffer, bodyStart, end, owned)
    if (call.receivedEnd) {
      // A call in the background keeps its body for as long as it likes.
      if (protocol !== 'async' && chunk.length <= FRAME_LIMITS.windowBytesMin) {
        call.lease = new BlockLease(chunk)
      }
      return begin(chunk)
    }
    if (wholeBytes !== undefined) {
      gather(call, wholeBytes, chunk, begin)
      return this.consumed(call, call.receivedBytes)
    }
    const body = new ResponseBody(this, call)
    call.body = body
    if (chunk.length > 0) body.accept(chunk)
    begin(body)
  }

  #onData(
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    const call = this.#calls[id]
    if (call === undefined) return
    const last = (flags & END) !== 0
    if (call.sentEnd) {
      if (last) this.#calls[id] = undefined
      return
    }
    const before = call.receivedBytes
    this.#receive(call, end - start)
    call.receivedEnd = last
    if (call.whole !== undefined) {
      buffer.copy(call.whole, before, start, end)
      if (last) call.begin?.()
      else this.consumed(call, call.receivedBytes)
      return
    }
    if (end > start) call.body?.accept(keep(buffer, start, end, owned))
    if (last) call.body?.finish()
  }

  #onCancel(id: number): void {
    const call = this.#calls[id]
    if (call === undefined) return
    call.receivedEnd = true
    if (call.sentEnd) this.#calls[id] = undefined
    else this.#abandon(call)
  }

  /** The caller has gone, or the worker has. */
  #abandon(call: PortCall): void {
    const fault = new Fault('CALLER_GONE', 'The caller has gone')
    call.leave(fault)
    // Not when the router has told it already.
    this.#fail(call, fault)
    call.body?.break(fault)
    call.answer?.destroy()
  }

  #begin(call: PortCall, invocation: Invocation): void {
    if (invocation.protocol === 'async') {
      this.#invoker.accept(invocation).then(
        () => this.#answer(call, ACCEPTED),
        (error: unknown) => this.#fail(call, error),
      )
      return
    }
    this.#invoker.start(
      invocation,
      call,
      (result) => this.#answer(call, result),
      (error) => this.#fail(call, error),
    )
  }

  #answer(call: PortCall, { status, headers, body }: Result): void {
    call.lease?.end()
    if (call.sentEnd) {
      if (!Buffer.isBuffer(body)) body.destroy()
      return
    }
    const { writer } = this.#connection
    const { id } = call
    const head = headers.join('\n')
    const bytes = Buffer.byteLength(head)
    if (bytes > FRAME_LIMITS.headBytesMax) {
      if (!Buffer.isBuffer(body)) body.destroy()
      return this.#fail(call, headGrown())
    }
    const hooks = {
      sent: () => this.#over(call),
      broke: (fault: Fault) => this.#fail(call, fault),
    }
    if (!Buffer.isBuffer(body)) {
      writer.response(id, 0, status, head, bytes, NO_BYTES, 0)
      call.answer = body
      const most = Number.POSITIVE_INFINITY
      const sender = new StreamSender(writer, id, body, WINDOW_BYTES, most, hooks)
      call.sender = sender
      return sender.start()
    }
    const inline = Math.min(body.length, WINDOW_BYTES)
    const last = inline === body.length
    writer.response(id, last ? END : 0, status, head, bytes, body, inline)
    if (last) this.#over(call)
    else call.sender = new BufferSender(writer, id, body, inline, WINDOW_BYTES, hooks)
  }

  #fail(call: PortCall, error: unknown): void {
    if (call.sentEnd) return
    const payload = faultBytes(error instanceof Fault ? error : this.#bug(call, error))
    this.#connection.writer.control(FRAME.error, call.id, payload)
    this.#over(call)
  }

  /** Logged here, where it came up; a caller learns no detail of it. */
  #bug({ request }: PortCall, error: unknown): Fault {
    const fields = { [LOG_KEYS.err]: error, [LOG_KEYS.request]: request }
    this.#log.error(fields, 'unexpected error in a call')
    return new Fault('INTERNAL', 'internal error')
  }

  /** Our side has ended. */
  #over(call: PortCall): void {
    call.sentEnd = true
    call.sender?.stop()
    call.sender = undefined
    call.whole = undefined
    call.begin = undefined
    this.#connection.writer.inFlight -= 1
    if (call.receivedEnd) this.#calls[call.id] = undefined
    else call.body?.destroy()
  }

  #receive(call: PortCall, bytes: number): void {
    call.receivedBytes += bytes
    const allowed = call.receivedBytes <= call.grantedBytes
    if (allowed && bytes <= FRAME_LIMITS.bodyFrameBytesMax) return
    throw new ProtocolError(`Call ${call.id} sent more body than its window allows`)
  }
}

const NO_BYTES = Buffer.alloc(0)
const ACCEPTED: Result = { status: 202, headers: [], body: NO_BYTES }

/**
 * What came in a frame need not fit into one again: each byte of a head that is no UTF-8 was read as a replacement character, and is
 * three bytes now. Runners let such bytes pass, so they are no reason to end the runner's connection.
 */
function headGrown(): Fault {
  const most = FRAME_LIMITS.headBytesMax
  return new Fault(
    'FUNCTION_BAD_ANSWER',
    `The headers of the function's answer have more than ${most} bytes as UTF-8`,
    { headBytesMax: most },
  )
}

/** A caller gives a body whole when it matters that it is: for a second try, and for the background. */
function gather(call: PortCall, bytes: number, chunk: Buffer, begin: (body: Body) => void): void {
  const whole = Buffer.allocUnsafeSlow(bytes)
  chunk.copy(whole)
  call.whole = whole
  call.begin = () => begin(whole)
}

function protocolOf(text = ''): Invocation['protocol'] {
  if (isProtocol(text)) return text
  throw new ProtocolError(`REQUEST by protocol ${text}`)
}
