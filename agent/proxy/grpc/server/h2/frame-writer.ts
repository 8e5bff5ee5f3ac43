import type { Socket } from 'node:net'
import { type Code, FLAG, FRAME, FRAME_HEADER_BYTES } from './format.ts'

/** While this much waits for the peer no more DATA is written ... */
const ROOM_BYTES = 256 * 1024
/** ... and from here on nothing more is read either, so that nothing needs an answer. */
const FULL_BYTES = 1024 * 1024
/** Below this several frames are copied into one piece. */
const JOINED_BYTES_MAX = 32 * 1024

/** Encodes frames; all of one turn of the event loop are one write. */
export class FrameWriter {
  readonly #socket: Socket
  #frames: Buffer[] = []
  #bytes = 0

  constructor(socket: Socket) {
    this.#socket = socket
  }

  get hasRoom(): boolean {
    return this.#bytes + this.#socket.writableLength < ROOM_BYTES
  }

  get isFull(): boolean {
    return this.#bytes + this.#socket.writableLength >= FULL_BYTES
  }

  /** Any frame; the payload is copied. */
  frame(type: number, flags: number, id: number, payload: Buffer): void {
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length)
    writeHeader(frame, 0, payload.length, type, flags, id)
    payload.copy(frame, FRAME_HEADER_BYTES)
    this.#add(frame)
  }

  /** A frame whose payload is one number of 32 bits. */
  number(type: number, id: number, value: number): void {
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 4)
    writeHeader(frame, 0, 4, type, 0, id)
    frame.writeUInt32BE(value, FRAME_HEADER_BYTES)
    this.#add(frame)
  }

  /** @param lastId - streams above it are not, and will not be, taken */
  goaway(lastId: number, code: Code): void {
    const payload = Buffer.allocUnsafe(8)
    payload.writeUInt32BE(lastId, 0)
    payload.writeUInt32BE(code, 4)
    this.frame(FRAME.goaway, 0, 0, payload)
  }

  /** `bytes[start, end)`, which must stay unchanged until written. */
  data(id: number, bytes: Buffer, start: number, end: number): void {
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
    writeHeader(header, 0, end - start, FRAME.data, 0, id)
    this.#add(header)
    this.#add(bytes.subarray(start, end))
  }

  /** A whole answer: header, one message, trailers. The message is copied. */
  answer(id: number, header: Buffer, message: Buffer, trailers: Buffer): void {
    const bytes = header.length + message.length + trailers.length
    const frames = Buffer.allocUnsafe(3 * FRAME_HEADER_BYTES + bytes)
    let at = writeHeader(frames, 0, header.length, FRAME.headers, FLAG.endHeaders, id)
    at += header.copy(frames, at)
    at = writeHeader(frames, at, message.length, FRAME.data, 0, id)
    at += message.copy(frames, at)
    at = writeHeader(frames, at, trailers.length, FRAME.headers, END, id)
    trailers.copy(frames, at)
    this.#add(frames)
  }

  /** Writes what has been encoded, without waiting for the turn's end. */
  readonly flush = (): void => {
    const frames = this.#frames
    if (frames.length === 0) return
    const bytes = this.#bytes
    this.#frames = []
    this.#bytes = 0
    const socket = this.#socket
    const [first] = frames
    if (frames.length === 1 && first !== undefined) socket.write(first)
    else if (bytes <= JOINED_BYTES_MAX) socket.write(Buffer.concat(frames, bytes))
    else {
      socket.cork()
      for (const frame of frames) socket.write(frame)
      socket.uncork()
    }
  }

  #add(frame: Buffer): void {
    if (this.#frames.length === 0) process.nextTick(this.flush)
    this.#frames.push(frame)
    this.#bytes += frame.length
  }
}

const END = FLAG.endHeaders | FLAG.endStream

/** @returns where the payload goes */
function writeHeader(
  frame: Buffer,
  at: number,
  bytes: number,
  type: number,
  flags: number,
  id: number,
): number {
  frame[at] = bytes >>> 16
  frame[at + 1] = bytes >>> 8
  frame[at + 2] = bytes
  frame[at + 3] = type
  frame[at + 4] = flags
  frame[at + 5] = id >>> 24
  frame[at + 6] = id >>> 16
  frame[at + 7] = id >>> 8
  frame[at + 8] = id
  return at + FRAME_HEADER_BYTES
}
