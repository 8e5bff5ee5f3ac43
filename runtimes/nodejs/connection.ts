import { connect, type Socket } from 'node:net'
import { Call, type CallHost } from './call.ts'
import { CallTable } from './call-table.ts'
import { FrameDecoder, u16, u32 } from './decoder.ts'
import { asError, asText, hasFields, type Fields } from './guards.ts'
import type { Logs } from './logs.ts'
import { cut, END, KIND, LIMIT, ProtocolError, TYPE } from './protocol.ts'
import type { WholeBody } from './whole-body.ts'
import { FrameWriter } from './writer.ts'

/** What the connection asks of the runner behind it. */
export interface ConnectionOwner {
  readonly logs: Logs
  hello(): Readonly<Record<string, unknown>>
  /** WELCOME has come. */
  welcomed(connection: Connection): void
  init(message: Readonly<Record<string, unknown>>): void
  /** Undefined: READY {ok:true} has not been said. */
  readonly accept: ((call: Call) => void) | undefined
  readonly concurrency: number
  readonly draining: boolean
  shutdown(): void
  /** The last call in flight has ended. */
  idle(): void
  closed(error: Error | undefined): void
  /** The agent shares no version of the protocol. */
  refused(message: string): void
}

const READ_BYTES = 262_144
/** From here on batches are written at the end of the loop's turn. */
const MANY_IN_FLIGHT = 64

type Message = Fields

/** One connection to the agent: frames in, frames out, and the calls in flight. */
export class Connection implements CallHost {
  readonly writer: FrameWriter
  windowBytes: number = LIMIT.windowBytes
  payloadBytesMax: number = LIMIT.payloadBytes
  readonly #owner: ConnectionOwner
  readonly #socket: Socket
  readonly #decoder: FrameDecoder
  readonly #calls = new CallTable()
  #welcomed = false
  #closed = false
  #greeting: NodeJS.Timeout | undefined

  constructor(socketPath: string, owner: ConnectionOwner) {
    this.#owner = owner
    this.#decoder = new FrameDecoder((...frame) => this.#onFrame(...frame))
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    this.#socket = connect({
      path: socketPath,
      onread: {
        buffer,
        callback: (bytes) => {
          this.#read(buffer, bytes)
          return true
        },
      },
    })
    this.writer = new FrameWriter(this.#socket, () => this.#calls.size > MANY_IN_FLIGHT)
    this.#socket.on('connect', () => this.#greet())
    this.#socket.on('drain', () => owner.logs.drain())
    this.#socket.on('error', (error) => this.close(error))
    this.#socket.on('close', () => this.close(undefined))
    this.#socket.on('end', () => this.close(undefined))
  }

  get inFlight(): number {
    return this.#calls.size
  }

  calls(): readonly Call[] {
    return this.#calls.all()
  }

  send(type: number, message: Message): void {
    this.writer.text(type, 0, -1, JSON.stringify(message))
  }

  /** Everything written so far is handed to the kernel, then the connection ends. */
  async end(): Promise<void> {
    this.writer.flush()
    await new Promise<void>((resolve) => {
      this.#socket.end(resolve)
      this.#socket.once('close', () => resolve())
    })
  }

  close(error: Error | undefined): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#greeting)
    this.#decoder.stop()
    this.writer.close()
    this.#owner.logs.attach(undefined)
    this.#socket.destroy()
    const lost = new Error('the connection to the agent has ended')
    for (const call of this.calls()) call.run(() => call.lose(lost))
    this.#owner.closed(error)
  }

  flushPartialLines(call: Call): void {
    if (call.partial[0] !== '' || call.partial[1] !== '') this.#owner.logs.flushPartialLines(call)
  }

  ended(call: Call): void {
    this.#calls.delete(call)
    this.#owner.logs.disown(call.id)
    if (this.#owner.draining && this.#calls.size === 0) this.#owner.idle()
  }

  #greet(): void {
    this.send(TYPE.HELLO, this.#owner.hello())
    this.writer.flush()
    this.#greeting = setTimeout(() => {
      this.close(new Error(`the agent sent no WELCOME within ${LIMIT.greetingMs} ms`))
    }, LIMIT.greetingMs)
  }

  #read(buffer: Buffer, bytes: number): void {
    try {
      this.#decoder.push(buffer, bytes)
    } catch (error) {
      this.close(asError(error))
    }
  }

  #onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    if (!this.#welcomed && type !== TYPE.WELCOME && type !== TYPE.PING && known(type)) {
      throw new ProtocolError('FORBIDDEN', `a frame of type ${type} before WELCOME`)
    }
    switch (type) {
      case TYPE.REQUEST:
        this.#request(flags, id, bytes, start, end, owned)
        return
      case TYPE.DATA:
        this.#data(this.#calls.get(id), bytes.subarray(start, end), (flags & END) !== 0)
        return
      case TYPE.WINDOW:
        need(end - start >= 4, 'WINDOW')
        grant(this.#calls.get(id), u32(bytes, start))
        return
      case TYPE.CANCEL:
        need(end - start >= 1, 'CANCEL')
        cancel(this.#calls.get(id), bytes[start] ?? 0)
        return
      case TYPE.PING:
        if (end - start > LIMIT.pingBytes) {
          throw new ProtocolError('PAYLOAD_TOO_LONG', `a ping of ${end - start} bytes`)
        }
        this.writer.pong(id, bytes, start, end)
        return
      case TYPE.WELCOME:
        this.#welcome(parse(bytes, start, end))
        return
      case TYPE.INIT:
        this.#owner.init(parse(bytes, start, end))
        return
      case TYPE.SHUTDOWN:
        this.#owner.shutdown()
        return
      default:
        if (known(type) && type !== TYPE.PONG) {
          throw new ProtocolError('FORBIDDEN', `a frame of type ${type} sent to a runner`)
        }
    }
  }

  #data(call: Call | undefined, bytes: Buffer, last: boolean): void {
    call?.run(() => call.receive(bytes, last))
  }

  #welcome(message: Message): void {
    if (this.#welcomed) throw new ProtocolError('FORBIDDEN', 'a second WELCOME')
    clearTimeout(this.#greeting)
    if (message['protocol'] !== 1) {
      this.#owner.refused(asText(message['error']) || 'the agent shares no protocol version')
      return
    }
    this.#welcomed = true
    this.windowBytes = bounded(message['windowBytes'], 65_536, 1_048_576, LIMIT.windowBytes)
    this.payloadBytesMax = bounded(
      message['payloadBytesMax'],
      131_072,
      LIMIT.payloadBytes,
      LIMIT.payloadBytes,
    )
    this.#owner.welcomed(this)
    this.#owner.logs.attach(this.writer)
  }

  #request(
    flags: number,
    id: number,
    bytes: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    need(end - start >= 6, 'REQUEST')
    const headStart = start + 6
    const headEnd = headStart + u16(bytes, start + 4)
    need(headEnd <= end, 'REQUEST')
    const lines = headLines(bytes, headStart, headEnd)
    if (id === 0 || this.#calls.get(id) !== undefined) {
      throw new ProtocolError('FORBIDDEN', `a request with the id ${id}, which is in use`)
    }
    const accept = this.#owner.accept
    if (accept === undefined || this.#owner.draining) {
      if (accept === undefined && !this.#owner.draining) {
        throw new ProtocolError('FORBIDDEN', 'a request before READY')
      }
      this.writer.text(TYPE.ERROR, id, KIND.NOT_READY, 'the handler is shutting down')
      return
    }
    if (this.#calls.size >= this.#owner.concurrency) {
      const text = `the handler has ${this.#owner.concurrency} calls in flight already`
      this.writer.text(TYPE.ERROR, id, KIND.LIMIT, text)
      return
    }
    const last = (flags & END) !== 0
    const whole = last ? wholeBody(bytes, headEnd, end, owned) : undefined
    const first = last ? undefined : bytes.subarray(headEnd, end)
    const call = new Call(id, u32(bytes, start), lines, whole, first, this)
    this.#calls.add(call)
    accept(call)
  }
}

function grant(call: Call | undefined, bytes: number): void {
  call?.run(() => call.grant(bytes))
}

function cancel(call: Call | undefined, reason: number): void {
  call?.run(() => call.cancel(`cancelled: ${REASONS[reason] ?? 'no longer wanted'}`))
}

const REASONS = ['the caller has gone', 'deadline passed', 'output too large', 'shutting down']

/** Bodies up to this size are kept as Latin-1 text, which costs no buffer. */
const TEXT_BYTES_MAX = 4_096

function wholeBody(bytes: Buffer, start: number, end: number, owned: boolean): WholeBody {
  if (start === end) return ''
  if (end - start <= TEXT_BYTES_MAX) return bytes.latin1Slice(start, end)
  return own(bytes, start, end, owned)
}

function own(bytes: Buffer, start: number, end: number, owned: boolean): Buffer {
  if (owned) return bytes.subarray(start, end)
  const copy = Buffer.allocUnsafe(end - start)
  bytes.copy(copy, 0, start, end)
  return copy
}

/** The head's lines: method, path, query, then names and values. */
export function headLines(bytes: Buffer, start: number, end: number): readonly string[] {
  const lines = bytes.utf8Slice(start, end).split('\n')
  if (lines.length < 3 || lines.length % 2 === 0) {
    throw new ProtocolError('HEAD_MALFORMED', `a request head of ${lines.length} lines`)
  }
  return lines
}

function need(enough: boolean, name: string): void {
  if (!enough) throw new ProtocolError('PAYLOAD_TOO_SHORT', `${name} with too short a payload`)
}

const KNOWN: ReadonlySet<number> = new Set<number>(Object.values(TYPE))

function known(type: number): boolean {
  return KNOWN.has(type)
}

function bounded(value: unknown, min: number, max: number, fallback: number): number {
  return typeof value === 'number' && value >= min && value <= max ? Math.floor(value) : fallback
}

function parse(bytes: Buffer, start: number, end: number): Message {
  let value: unknown
  try {
    value = JSON.parse(bytes.utf8Slice(start, end))
  } catch (error) {
    throw new ProtocolError('JSON_MALFORMED', cut(`not JSON: ${String(error)}`, 500))
  }
  if (!hasFields(value) || Array.isArray(value)) {
    throw new ProtocolError('JSON_MALFORMED', 'a message that is no JSON object')
  }
  return value
}
