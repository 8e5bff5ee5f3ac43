import { blocks } from '#agent/sockets/index.ts'
import {
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  PAYLOAD_BYTES_MIN,
  ProtocolError,
  frameName,
} from './format.ts'

/** Gets each frame as soon as it is whole. May throw `ProtocolError`, which ends the decoding. */
export interface FrameSink {
  /**
   * The payload is `buffer[start, end)`. It is valid during this call only, unless `owned`: then nobody else refers to
   * it, and it may be kept without a copy.
   */
  frame(
    type: number,
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void
}

/**
 * Cuts a byte stream into frames.
 *
 * Frames that lie whole in a chunk are handed on where they are. Of one that is cut, the rest is gathered in a buffer of
 * its own, made only after its header has passed the limits; so one decoder keeps at most one payload.
 */
export class FrameDecoder {
  sink: FrameSink
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerBytes = 0
  #payload: Buffer | undefined
  #payloadBytes = 0

  constructor(sink: FrameSink) {
    this.sink = sink
  }

  /** Bytes of a frame that is not whole yet. */
  get pendingBytes(): number {
    return this.#payload === undefined ? this.#headerBytes : HEADER_BYTES + this.#payloadBytes
  }

  /**
   * Decodes `chunk[0, length)`; the chunk may be re-used afterwards.
   *
   * @throws ProtocolError - and the decoder must not be used again
   */
  push(chunk: Buffer, length: number = chunk.length): void {
    let at = this.pendingBytes === 0 ? 0 : this.#resume(chunk, length)
    while (length - at >= HEADER_BYTES) {
      const bytes = u32At(chunk, at)
      const type = byteAt(chunk, at + 4)
      check(type, bytes)
      const start = at + HEADER_BYTES
      const end = start + bytes
      if (end > length) break
      at = end
      const id = u32At(chunk, start - 4)
      this.sink.frame(type, byteAt(chunk, start - 7), id, chunk, start, end, false)
    }
    if (at < length) this.#keep(chunk, at, length)
  }

  /**
   * Where the next bytes of the stream may be read to directly, when most of a large payload is still to come; what has
   * been read there is told to `filled`.
   */
  target(): Buffer | undefined {
    const payload = this.#payload
    if (payload === undefined || payload.length - this.#payloadBytes < DIRECT_BYTES_MIN) {
      return undefined
    }
    return payload.subarray(this.#payloadBytes)
  }

  /** `bytes` have been read into the buffer that `target` gave last. @throws ProtocolError */
  filled(bytes: number): void {
    this.#payloadBytes += bytes
    const payload = this.#payload
    if (payload !== undefined && this.#payloadBytes === payload.length) this.#finish(payload)
  }

  /** Completes the frame that the last chunk cut; returns where the next one starts. */
  #resume(chunk: Buffer, length: number): number {
    let at = 0
    if (this.#payload === undefined) {
      at = Math.min(length, HEADER_BYTES - this.#headerBytes)
      chunk.copy(this.#header, this.#headerBytes, 0, at)
      this.#headerBytes += at
      if (this.#headerBytes < HEADER_BYTES) return at
      this.#open()
    }
    const payload = this.#payload ?? NO_BYTES
    const taken = Math.min(length - at, payload.length - this.#payloadBytes)
    chunk.copy(payload, this.#payloadBytes, at, at + taken)
    this.#payloadBytes += taken
    if (this.#payloadBytes === payload.length) this.#finish(payload)
    return at + taken
  }

  #keep(chunk: Buffer, at: number, length: number): void {
    this.#headerBytes = Math.min(HEADER_BYTES, length - at)
    chunk.copy(this.#header, 0, at, at + this.#headerBytes)
    if (this.#headerBytes < HEADER_BYTES) return
    this.#open()
    this.#payloadBytes = chunk.copy(this.#payload ?? NO_BYTES, 0, at + HEADER_BYTES, length)
  }

  #open(): void {
    const bytes = u32At(this.#header, 0)
    check(byteAt(this.#header, 4), bytes)
    this.#payload = blocks.take(bytes)
    this.#payloadBytes = 0
  }

  #finish(payload: Buffer): void {
    const header = this.#header
    this.#payload = undefined
    this.#payloadBytes = 0
    this.#headerBytes = 0
    this.sink.frame(
      byteAt(header, 4),
      byteAt(header, 5),
      u32At(header, 8),
      payload,
      0,
      payload.length,
      true,
    )
  }
}

/** Below this, one more pass through the shared read buffer is cheaper than a read of its own. */
const DIRECT_BYTES_MIN = 32 * 1024

function check(type: number, bytes: number): void {
  const max = PAYLOAD_BYTES_MAX[type] ?? 0
  const min = PAYLOAD_BYTES_MIN[type] ?? 0
  if (bytes > max) {
    throw new ProtocolError(`${frameName(type)} of ${bytes} bytes, at most ${max} are allowed`)
  }
  if (bytes < min) {
    throw new ProtocolError(`${frameName(type)} of ${bytes} bytes, at least ${min} are needed`)
  }
}

/** The byte there; past the end 0, which no caller asks for. */
export function byteAt(buffer: Buffer, at: number): number {
  return buffer[at] ?? 0
}

/** Big-endian u16. */
export function u16At(buffer: Buffer, at: number): number {
  return (byteAt(buffer, at) << 8) | byteAt(buffer, at + 1)
}

/** Big-endian u32; four byte loads are faster than a call of `readUInt32BE` with its checks. */
export function u32At(buffer: Buffer, at: number): number {
  return ((u16At(buffer, at) << 16) | u16At(buffer, at + 2)) >>> 0
}

const NO_BYTES = Buffer.alloc(0)
