import { CODE, ConnectionError, FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from './format.ts'

export interface FrameSink {
  /** The payload is `buffer[start, end)`, and the buffer is not used again. */
  frame(type: number, flags: number, id: number, buffer: Buffer, start: number, end: number): void
}

/** What a client of HTTP/2 sends first: RFC 9113, section 3.4. */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

/**
 * Cuts what a client sends into frames. Frames that lie whole in a chunk are handed on where they are; of one that is cut the parts
 * are gathered, at most one frame's.
 */
export class FrameReader {
  readonly #sink: FrameSink
  #prefaceBytes = 0
  /** Of a frame that is cut; its header first, then room for all of it. */
  #held: Buffer = NO_BYTES
  #heldBytes = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** False until the client has said that it speaks HTTP/2. */
  get greeted(): boolean {
    return this.#prefaceBytes === PREFACE.length
  }

  /** @throws ConnectionError; the reader must not be used again then */
  push(chunk: Buffer): void {
    let at = this.greeted ? 0 : this.#greet(chunk)
    while (this.#heldBytes > 0 && at < chunk.length) at = this.#resume(chunk, at)
    while (chunk.length - at >= FRAME_HEADER_BYTES) {
      const start = at + FRAME_HEADER_BYTES
      const end = start + lengthAt(chunk, at)
      if (end > chunk.length) break
      this.#emit(chunk, at, start, end)
      at = end
    }
    if (at < chunk.length) this.#hold(chunk, at)
  }

  #greet(chunk: Buffer): number {
    const bytes = Math.min(PREFACE.length - this.#prefaceBytes, chunk.length)
    const expected = PREFACE.subarray(this.#prefaceBytes, this.#prefaceBytes + bytes)
    if (expected.compare(chunk, 0, bytes) !== 0) {
      throw new ConnectionError(CODE.protocolError, 'the peer does not speak HTTP/2')
    }
    this.#prefaceBytes += bytes
    return bytes
  }

  #hold(chunk: Buffer, at: number): void {
    const bytes = chunk.length - at
    const whole = bytes < FRAME_HEADER_BYTES ? 0 : lengthAt(chunk, at)
    this.#held = Buffer.allocUnsafe(FRAME_HEADER_BYTES + whole)
    this.#heldBytes = chunk.copy(this.#held, 0, at)
  }

  /** Adds to the frame that an earlier chunk cut; returns where the next one starts. */
  #resume(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#held.length - this.#heldBytes, chunk.length - at)
    chunk.copy(this.#held, this.#heldBytes, at, at + taken)
    this.#heldBytes += taken
    const end = at + taken
    if (this.#heldBytes < this.#held.length) return end
    const whole = FRAME_HEADER_BYTES + lengthAt(this.#held, 0)
    const held = this.#held
    if (held.length < whole) {
      this.#held = Buffer.allocUnsafe(whole)
      held.copy(this.#held)
      return end
    }
    this.#held = NO_BYTES
    this.#heldBytes = 0
    this.#emit(held, 0, FRAME_HEADER_BYTES, whole)
    return end
  }

  #emit(buffer: Buffer, at: number, start: number, end: number): void {
    const type = buffer[at + 3] ?? 0
    const flags = buffer[at + 4] ?? 0
    // Its highest bit means nothing.
    const id = buffer.readUInt32BE(at + 5) & 0x7fff_ffff
    this.#sink.frame(type, flags, id, buffer, start, end)
  }
}

/** @throws ConnectionError `FRAME_SIZE_ERROR`, before anything of the frame is kept */
function lengthAt(buffer: Buffer, at: number): number {
  const bytes = buffer.readUIntBE(at, 3)
  if (bytes <= FRAME_BYTES_MAX) return bytes
  throw new ConnectionError(CODE.frameSizeError, `a frame of ${bytes} bytes`)
}

const NO_BYTES = Buffer.alloc(0)
