import type { Socket } from 'node:net'
import { withReadBuffer } from '#agent/sockets/index.ts'
import { FRAME, FrameDecoder, FrameWriter, ProtocolError } from '../frames/index.ts'
import type { FrameOutput, FrameSink } from '../frames/index.ts'
import type { LinkConnection, LinkEnd } from './types.ts'

/** All sockets read into this one buffer: what was read is consumed before the next read of any of them. */
const READ_BUFFER = Buffer.allocUnsafeSlow(256 * 1024)

/** A runner that lets this much pile up and still sends PING does not read at all. */
const BACKLOG_BYTES_MAX = 1024 * 1024

export interface ConnectionOwner extends FrameSink {
  /** Called once, when the connection has ended, whoever ended it. */
  ended(end: LinkEnd): void
}

/** One accepted socket as a pair of frame streams. */
export class Connection implements FrameOutput, LinkConnection {
  readonly writer: FrameWriter
  readonly #decoder: FrameDecoder
  readonly #socket: Socket
  #owner: ConnectionOwner
  #over = false
  /** Where the socket reads to at the moment: `READ_BUFFER`, or the rest of a large payload. */
  #reading: Buffer = READ_BUFFER

  constructor(accepted: Socket, owner: ConnectionOwner) {
    this.#owner = owner
    this.writer = new FrameWriter(this)
    this.#decoder = new FrameDecoder(owner)
    this.#socket = withReadBuffer(accepted, {
      buffer: this.#nextBuffer,
      read: this.#read,
    })
    // An error is always followed by `close`, which says enough.
    this.#socket.on('error', () => {})
    this.#socket.on('end', this.#gone)
    this.#socket.on('close', this.#gone)
  }

  get over(): boolean {
    return this.#over
  }

  get backlogBytes(): number {
    return this.#socket.writableLength
  }

  /** Hands all later frames, and the end, to another owner. */
  handTo(owner: ConnectionOwner): void {
    this.#owner = owner
    this.#decoder.sink = owner
  }

  write(chunk: Buffer, written?: (error?: Error | null) => void): void {
    this.#socket.write(chunk, written)
  }

  cork(): void {
    this.#socket.cork()
  }

  uncork(): void {
    this.#socket.uncork()
  }

  pong(id: number, payload: Buffer): void {
    if (this.backlogBytes > BACKLOG_BYTES_MAX) {
      throw new ProtocolError('The runner sends PING but does not read what it is sent')
    }
    this.writer.control(FRAME.pong, id, payload)
  }

  /** Ends the connection and tells the owner. Frames written before (a WELCOME that says why) still go out. */
  end(end: LinkEnd): void {
    if (this.#over) return
    this.#over = true
    this.writer.flush()
    this.writer.close()
    this.#socket.destroySoon()
    // A peer that does not read would keep a half-closed socket alive for ever.
    const reaper = setTimeout(() => this.#socket.destroy(), 1_000)
    this.#socket.once('close', () => clearTimeout(reaper))
    this.#owner.ended(end)
  }

  readonly #gone = (): void => {
    this.end({ kind: 'exited', reason: 'The runner closed its connection' })
  }

  readonly #nextBuffer = (): Buffer => {
    this.#reading = this.#decoder.target() ?? READ_BUFFER
    return this.#reading
  }

  readonly #read = (bytes: number): boolean => {
    if (this.#over) return true
    try {
      if (this.#reading === READ_BUFFER) this.#decoder.push(READ_BUFFER, bytes)
      else this.#decoder.filled(bytes)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.end({ kind: 'protocol', reason: error.message })
    }
    return true
  }
}
