/**
 * The agent's side of the runner protocol, small and plain: for tests of the runners.
 *
 * Written from `runtimes/PROTOCOL.md` alone, apart from the agent's own code, so that the two check each other.
 */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'

export const TYPE = {
  HELLO: 0x01,
  WELCOME: 0x02,
  INIT: 0x03,
  READY: 0x04,
  SHUTDOWN: 0x05,
  REQUEST: 0x10,
  RESPONSE: 0x11,
  DATA: 0x12,
  WINDOW: 0x13,
  CANCEL: 0x14,
  ERROR: 0x15,
  LOG: 0x20,
  PING: 0x30,
  PONG: 0x31,
} as const

export interface Frame {
  readonly type: number
  readonly end: boolean
  readonly id: number
  readonly payload: Buffer
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0)

  push(bytes: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    const frames: Frame[] = []
    while (this.#rest.length >= 12) {
      const length = this.#rest.readUInt32BE(0)
      if (this.#rest.length < 12 + length) break
      frames.push({
        type: this.#rest.readUInt8(4),
        end: (this.#rest.readUInt8(5) & 1) === 1,
        id: this.#rest.readUInt32BE(8),
        payload: Buffer.from(this.#rest.subarray(12, 12 + length)),
      })
      this.#rest = this.#rest.subarray(12 + length)
    }
    return frames
  }
}

export function encodeFrame(type: number, id: number, payload: Buffer, end = false): Buffer {
  const prefix = Buffer.alloc(12)
  prefix.writeUInt32BE(payload.length, 0)
  prefix.writeUInt8(type, 4)
  prefix.writeUInt8(end ? 1 : 0, 5)
  prefix.writeUInt32BE(id, 8)
  return Buffer.concat([prefix, payload])
}

export interface RequestInput {
  readonly method?: string
  readonly path?: string
  readonly query?: string
  readonly headers?: readonly string[]
  readonly body?: string | Buffer
  readonly deadlineMs?: number
}

export function encodeRequest(id: number, input: RequestInput, end = true): Buffer {
  const { method = 'POST', path = '', query = '', headers = [], body = '', deadlineMs = 0 } = input
  const head = Buffer.from([method, path, query, ...headers].join('\n'))
  const fixed = Buffer.alloc(6)
  fixed.writeUInt32BE(deadlineMs, 0)
  fixed.writeUInt16BE(head.length, 4)
  return encodeFrame(TYPE.REQUEST, id, Buffer.concat([fixed, head, Buffer.from(body)]), end)
}

export interface LogFrame {
  readonly id: number
  readonly level: number
  readonly text: string
}

/** What became of a call. */
export interface Answer {
  readonly status: number
  readonly headers: readonly string[]
  readonly body: Buffer
  readonly text: string
  readonly error?: { readonly kind: number; readonly text: string }
}

/** One call in flight, seen from the agent. */
export class ClientCall {
  readonly id: number
  status = 0
  headers: readonly string[] = []
  readonly chunks: Buffer[] = []
  bodyBytes = 0
  error: { readonly kind: number; readonly text: string } | undefined
  started = false
  done = false
  /** Bytes that the runner may still be sent. */
  credit: number
  readonly #settled = Promise.withResolvers<void>()
  #changed = Promise.withResolvers<void>()

  constructor(id: number, credit: number) {
    this.id = id
    this.credit = credit
  }

  /** Resolves at the next thing that happens to the call. */
  get change(): Promise<void> {
    return this.#changed.promise
  }

  touch(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }

  settle(): void {
    this.done = true
    this.#settled.resolve()
    this.touch()
  }

  async answer(): Promise<Answer> {
    await this.#settled.promise
    const body = Buffer.concat(this.chunks)
    const { status, headers, error } = this
    return { status, headers, body, text: body.toString(), ...(error ? { error } : {}) }
  }
}

type Message = Readonly<Record<string, unknown>>

function parseMessage(payload: Buffer): Message {
  const value: unknown = JSON.parse(payload.toString())
  if (!isMessage(value)) throw new TypeError('a message that is no JSON object')
  return value
}

function isMessage(value: unknown): value is Message {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export interface InitInput {
  readonly dir: string
  readonly fn?: string
  readonly entry?: string
  readonly env?: Readonly<Record<string, string>>
  readonly concurrency?: number
}

/** One connection of a runner. */
export class RunnerSession implements AsyncDisposable {
  readonly socket: Socket
  readonly logs: LogFrame[] = []
  readonly closed: Promise<unknown>
  windowBytes = 262_144
  /** True: what the runner sends is granted again at once. */
  autoGrant = true
  readonly #reader = new FrameReader()
  readonly #calls = new Map<number, ClientCall>()
  readonly #messages = new Map<number, PromiseWithResolvers<Message>>()
  readonly #pongs: ((payload: Buffer) => void)[] = []
  readonly #logWaiters: (() => void)[] = []
  #lastId = 0

  constructor(socket: Socket) {
    this.socket = socket
    this.closed = new Promise((resolve) => {
      socket.once('close', resolve)
    })
    socket.on('error', () => undefined)
    socket.on('data', (bytes: Buffer) => {
      for (const frame of this.#reader.push(bytes)) this.#onFrame(frame)
    })
    socket.on('close', () => {
      for (const call of this.#calls.values()) {
        call.error = { kind: -1, text: 'connection closed' }
        call.settle()
      }
      this.#calls.clear()
    })
  }

  get inFlight(): number {
    return this.#calls.size
  }

  send(type: number, id: number, payload: Buffer | string = '', end = false): void {
    this.socket.write(encodeFrame(type, id, Buffer.from(payload), end))
  }

  async message(type: number): Promise<Message> {
    return this.#slot(type).promise
  }

  async hello(): Promise<Message> {
    return this.message(TYPE.HELLO)
  }

  async readyMessage(): Promise<Message> {
    return this.message(TYPE.READY)
  }

  welcome(
    message: Message = { protocol: 1, windowBytes: this.windowBytes, payloadBytesMax: 1_114_112 },
  ): void {
    this.send(TYPE.WELCOME, 0, JSON.stringify(message))
  }

  /** WELCOME and INIT; resolves to the runner's READY. */
  async init(input: InitInput): Promise<Message> {
    await this.hello()
    this.welcome()
    const { dir, fn = 'test', entry, env = {}, concurrency = 64 } = input
    const init = { fn, release: 'r1-test', dir, entry, env, concurrency, timeoutMs: 30_000 }
    this.send(TYPE.INIT, 0, JSON.stringify(init))
    return this.message(TYPE.READY)
  }

  /** Starts a call; `end` false: the body goes on. */
  begin(input: RequestInput = {}, end = true): ClientCall {
    this.#lastId += 1
    const call = this.track(this.#lastId, this.windowBytes - Buffer.byteLength(input.body ?? ''))
    this.socket.write(encodeRequest(call.id, input, end))
    return call
  }

  /** Expects answers with this id; the request is sent by the caller. */
  track(id: number, credit = this.windowBytes): ClientCall {
    const call = new ClientCall(id, credit)
    this.#calls.set(id, call)
    return call
  }

  async call(input: RequestInput = {}): Promise<Answer> {
    return this.begin(input).answer()
  }

  /** Sends body bytes as the runner grants them. */
  async sendBody(call: ClientCall, body: Buffer, end: boolean): Promise<void> {
    let from = 0
    while (from < body.length && !call.done) {
      const count = Math.min(call.credit, body.length - from)
      if (count === 0) {
        await call.change
        continue
      }
      call.credit -= count
      this.send(TYPE.DATA, call.id, body.subarray(from, from + count))
      from += count
    }
    if (end) this.send(TYPE.DATA, call.id, '', true)
  }

  cancel(call: ClientCall, reason = 0): void {
    this.send(TYPE.CANCEL, call.id, Buffer.from([reason]))
  }

  grant(call: ClientCall, bytes: number): void {
    const payload = Buffer.alloc(4)
    payload.writeUInt32BE(bytes)
    this.send(TYPE.WINDOW, call.id, payload)
  }

  /** The payload of the answer. */
  async ping(payload = Buffer.from('ping')): Promise<Buffer> {
    const pong = new Promise<Buffer>((resolve) => {
      this.#pongs.push(resolve)
    })
    this.send(TYPE.PING, 0, payload)
    return pong
  }

  /** The first log line that `matches`, now or later. */
  async log(matches: (line: LogFrame) => boolean): Promise<LogFrame> {
    for (;;) {
      const found = this.logs.find((line) => matches(line))
      if (found !== undefined) return found
      await new Promise<void>((resolve) => {
        this.#logWaiters.push(resolve)
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy()
    await this.closed
  }

  #slot(type: number): PromiseWithResolvers<Message> {
    const slot = this.#messages.get(type) ?? Promise.withResolvers<Message>()
    this.#messages.set(type, slot)
    return slot
  }

  #onFrame(frame: Frame): void {
    const { type, id, payload } = frame
    if (type === TYPE.HELLO || type === TYPE.READY) this.#slot(type).resolve(parseMessage(payload))
    else if (type === TYPE.PONG) this.#pongs.shift()?.(payload)
    else if (type === TYPE.LOG) {
      this.logs.push({ id, level: payload.readUInt8(0), text: payload.toString('utf8', 1) })
      for (const wake of this.#logWaiters.splice(0)) wake()
    } else this.#onCallFrame(frame)
  }

  #onCallFrame({ type, id, payload, end }: Frame): void {
    const call = this.#calls.get(id)
    if (call === undefined) return
    if (type === TYPE.WINDOW) call.credit += payload.readUInt32BE(0)
    if (type === TYPE.RESPONSE) {
      call.status = payload.readUInt16BE(0)
      const headEnd = 4 + payload.readUInt16BE(2)
      const head = payload.toString('utf8', 4, headEnd)
      call.headers = head === '' ? [] : head.split('\n')
      call.started = true
      this.#take(call, payload.subarray(headEnd), end)
    }
    if (type === TYPE.DATA) this.#take(call, payload, end)
    if (type === TYPE.ERROR) {
      call.error = { kind: payload.readUInt8(0), text: payload.toString('utf8', 1) }
    }
    if (type === TYPE.ERROR || (end && type !== TYPE.WINDOW)) {
      this.#calls.delete(id)
      call.settle()
    } else call.touch()
  }

  #take(call: ClientCall, bytes: Buffer, end: boolean): void {
    call.chunks.push(bytes)
    call.bodyBytes += bytes.length
    if (this.autoGrant && bytes.length > 0 && !end) this.grant(call, bytes.length)
  }
}

/** Listens like an agent for the runner of one handler. */
export class RunnerListener implements AsyncDisposable {
  readonly path: string
  readonly #server: Server
  readonly #waiting: ((session: RunnerSession) => void)[] = []
  readonly #arrived: RunnerSession[] = []
  readonly #sessions: RunnerSession[] = []

  private constructor(server: Server, path: string) {
    this.#server = server
    this.path = path
    server.on('connection', (socket) => {
      const session = new RunnerSession(socket)
      this.#sessions.push(session)
      const waiter = this.#waiting.shift()
      if (waiter === undefined) this.#arrived.push(session)
      else waiter(session)
    })
  }

  static async listen(path: string): Promise<RunnerListener> {
    const server = createServer()
    server.listen({ path, readableAll: true, writableAll: true })
    await once(server, 'listening')
    return new RunnerListener(server, path)
  }

  /** The next runner that connects. */
  async session(): Promise<RunnerSession> {
    const arrived = this.#arrived.shift()
    if (arrived !== undefined) return arrived
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session.socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
