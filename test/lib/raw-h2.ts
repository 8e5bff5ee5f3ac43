import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** What a client of HTTP/2 sends first. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export interface RawFrame {
  readonly type: number
  readonly flags: number
  readonly id: number
  readonly payload: Buffer
}

/** One frame as it goes over the wire. */
export function clientFrame(
  type: number,
  flags: number,
  id: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const header = Buffer.alloc(9)
  header.writeUIntBE(payload.length, 0, 3)
  header[3] = type
  header[4] = flags
  header.writeUInt32BE(id, 5)
  return Buffer.concat([header, payload])
}

/** A header block of plain literals: name, value, name, value, ... */
export function literalBlock(...fields: readonly string[]): Buffer {
  const parts = fields.map((text, at) => {
    if (text.length >= 127 + 128) throw new RangeError('a longer text than this can write')
    const length = text.length < 127 ? [text.length] : [127, text.length - 127]
    return Buffer.concat([Buffer.from(at % 2 === 0 ? [0, ...length] : length), Buffer.from(text)])
  })
  return Buffer.concat(parts)
}

/** The header block of a gRPC request. */
export function grpcBlock(path: string, ...more: readonly string[]): Buffer {
  const fields = [':method', 'POST', ':scheme', 'http', ':path', path, ':authority', 'test']
  return literalBlock(...fields, 'content-type', 'application/grpc', 'te', 'trailers', ...more)
}

/** A big-endian number of 32 bits. */
export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32BE(value)
  return buffer
}

/** One connection that sends exactly the frames that a test wants, right or wrong. */
export class RawH2 implements Disposable {
  readonly socket: Socket
  readonly frames: RawFrame[] = []
  ended = false
  #rest: Buffer = Buffer.alloc(0)
  #wake: (() => void) | undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('close', () => {
      this.ended = true
      this.#wake?.()
    })
    // A reset is an end like any other here.
    socket.on('error', () => undefined)
  }

  /** Without preface. */
  static async connect(port: number): Promise<RawH2> {
    const socket = connect({ port, host: '127.0.0.1' })
    const raw = new RawH2(socket)
    await once(socket, 'connect')
    return raw
  }

  /** With preface and SETTINGS. */
  static async greet(port: number, settings: Uint8Array = Buffer.alloc(0)): Promise<RawH2> {
    const raw = await RawH2.connect(port)
    raw.socket.write(Buffer.concat([PREFACE, clientFrame(4, 0, 0, settings)]))
    return raw
  }

  send(
    ...frames: readonly (readonly [type: number, flags: number, id: number, payload?: Uint8Array])[]
  ): void {
    this.socket.write(Buffer.concat(frames.map((frame) => clientFrame(...frame))))
  }

  /** The first frame, of those that came or will, that matches; it is taken out. Rejects when the connection ends without one. */
  async next(matches: (frame: RawFrame) => boolean, timeoutMs = 20_000): Promise<RawFrame> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const at = this.frames.findIndex(matches)
      const [frame] = at === -1 ? [] : this.frames.splice(at, 1)
      if (frame !== undefined) return frame
      const leftMs = deadline - Date.now()
      if (this.ended || leftMs <= 0) {
        const last = this.frames.slice(-50)
        const seen = last.map(({ type, flags, id }) => `${type}/${flags}/${id}`).join(' ')
        throw new Error(`${String(matches)}: ${this.ended ? 'ended' : 'silent'} after ${seen}`)
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  /** The code of the GOAWAY that ends the connection. */
  async goaway(): Promise<number> {
    const { payload } = await this.next(({ type }) => type === 7)
    return payload.readUInt32BE(4)
  }

  /** The code of a stream's RST_STREAM. */
  async reset(stream: number): Promise<number> {
    const { payload } = await this.next(({ type, id }) => type === 3 && id === stream)
    return payload.readUInt32BE()
  }

  [Symbol.dispose](): void {
    this.socket.destroy()
  }

  #take(chunk: Buffer): void {
    let bytes = Buffer.concat([this.#rest, chunk])
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      const end = 9 + bytes.readUIntBE(0, 3)
      const [type = 0, flags = 0] = bytes.subarray(3, 5)
      this.frames.push({ type, flags, id: bytes.readUInt32BE(5), payload: bytes.subarray(9, end) })
      bytes = bytes.subarray(end)
    }
    this.#rest = bytes
    this.#wake?.()
  }
}
