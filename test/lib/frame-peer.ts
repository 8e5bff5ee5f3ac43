import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { once } from 'node:events'

/** One frame as it was on the wire. */
export interface WireFrame {
  readonly type: number
  readonly flags: number
  readonly id: number
  readonly payload: Buffer
}

/** Frame types, spelled out here once more on purpose: the peer shares no code with what it tests. */
export const TYPE = {
  hello: 0x01,
  welcome: 0x02,
  init: 0x03,
  ready: 0x04,
  shutdown: 0x05,
  request: 0x10,
  response: 0x11,
  data: 0x12,
  window: 0x13,
  cancel: 0x14,
  error: 0x15,
  log: 0x20,
  ping: 0x30,
  pong: 0x31,
} as const

/** One frame as bytes; `length` lies about the payload when given. */
export function frameBytes(
  type: number,
  id: number,
  payload: Buffer | string = '',
  options: { readonly end?: boolean; readonly length?: number } = {},
): Buffer {
  const body = Buffer.from(payload)
  const header = Buffer.alloc(12)
  header.writeUInt32BE(options.length ?? body.length, 0)
  header.writeUInt8(type, 4)
  header.writeUInt8(options.end === true ? 1 : 0, 5)
  header.writeUInt32BE(id, 8)
  return Buffer.concat([header, body])
}

/** RESPONSE as bytes. */
export function responseBytes(
  id: number,
  body: Buffer | string = '',
  options: {
    readonly status?: number
    readonly headers?: readonly string[]
    readonly end?: boolean
  } = {},
): Buffer {
  const head = Buffer.from((options.headers ?? []).join('\n'))
  const fixed = Buffer.alloc(4)
  fixed.writeUInt16BE(options.status ?? 200, 0)
  fixed.writeUInt16BE(head.length, 2)
  const payload = Buffer.concat([fixed, head, Buffer.from(body)])
  return frameBytes(TYPE.response, id, payload, { end: options.end ?? true })
}

/** ERROR as bytes. */
export function errorBytes(id: number, kind: number, text: string): Buffer {
  return frameBytes(TYPE.error, id, Buffer.concat([Buffer.from([kind]), Buffer.from(text)]))
}

/** Cuts whole frames off the front of `bytes`; returns them with what is left. */
export function cutFrames(bytes: Buffer): { readonly frames: WireFrame[]; readonly rest: Buffer } {
  const frames: WireFrame[] = []
  let at = 0
  while (bytes.length - at >= 12) {
    const end = at + 12 + bytes.readUInt32BE(at)
    if (end > bytes.length) break
    frames.push({
      type: bytes.readUInt8(at + 4),
      flags: bytes.readUInt8(at + 5),
      id: bytes.readUInt32BE(at + 8),
      payload: bytes.subarray(at + 12, end),
    })
    at = end
  }
  return { frames, rest: bytes.subarray(at) }
}

/** A runner made of raw bytes: says what a test tells it to say, however wrong, and keeps all frames that it gets. */
export class FramePeer implements AsyncDisposable {
  readonly socket: Socket
  /** Frames that no `next` has taken. */
  readonly frames: WireFrame[] = []
  /** Called for each frame instead of keeping it. */
  onFrame: ((frame: WireFrame) => void) | undefined
  #rest = Buffer.alloc(0)
  #wake: (() => void) | undefined
  #closed = false

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#closed = true
      this.#wake?.()
    })
  }

  static async connect(path: string): Promise<FramePeer> {
    const socket = connect(path)
    await once(socket, 'connect')
    return new FramePeer(socket)
  }

  /** Connects, says HELLO, and takes WELCOME. */
  static async greeted(path: string, handler: string, state = 'empty'): Promise<FramePeer> {
    const peer = await FramePeer.connect(path)
    peer.hello(handler, { state })
    await peer.next(TYPE.welcome)
    return peer
  }

  /** As `greeted`, then takes INIT and says READY. */
  static async ready(path: string, handler: string): Promise<FramePeer> {
    const peer = await FramePeer.greeted(path, handler)
    await peer.next(TYPE.init)
    peer.send(frameBytes(TYPE.ready, 0, '{"ok":true}'))
    return peer
  }

  get closed(): boolean {
    return this.#closed
  }

  hello(handler: string, more: object = {}): void {
    const message = {
      protocol: { min: 1, max: 1 },
      handler,
      runtime: 'nodejs',
      runner: '1.0.0',
      pid: 1,
      state: 'empty',
      ...more,
    }
    this.send(frameBytes(TYPE.hello, 0, JSON.stringify(message)))
  }

  send(...chunks: readonly Buffer[]): void {
    for (const chunk of chunks) this.socket.write(chunk)
  }

  /** The next frame of this type; frames of other types before it stay. Rejects when the connection ends or after 5 s. */
  async next(type: number): Promise<WireFrame> {
    const deadline = Date.now() + 5_000
    for (;;) {
      const index = this.frames.findIndex((frame) => frame.type === type)
      const [found] = index === -1 ? [] : this.frames.splice(index, 1)
      if (found !== undefined) return found
      if (this.#closed) throw new Error(`closed while waiting for frame type ${type}`)
      if (Date.now() > deadline) throw new Error(`no frame of type ${type} within 5 s`)
      await this.#more()
    }
  }

  /** Resolves when the other side has ended the connection; rejects after 5 s. */
  async ended(): Promise<void> {
    const deadline = Date.now() + 5_000
    while (!this.#closed) {
      if (Date.now() > deadline) throw new Error('still connected after 5 s')
      await this.#more()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy()
    await this.ended()
  }

  #take(chunk: Buffer): void {
    const { frames, rest } = cutFrames(Buffer.concat([this.#rest, chunk]))
    this.#rest = Buffer.from(rest)
    for (const frame of frames) {
      if (this.onFrame === undefined) this.frames.push(frame)
      else this.onFrame(frame)
    }
    this.#wake?.()
  }

  async #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const timer = setTimeout(resolve, 100)
    await promise
    clearTimeout(timer)
  }
}
