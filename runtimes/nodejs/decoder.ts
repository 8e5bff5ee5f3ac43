import { END, LIMIT, PREFIX_BYTES, ProtocolError, TYPE } from './protocol.ts'
import { tookBytes } from './body-memory.ts'

/**
 * Gets each frame, and of DATA perhaps several parts with END at the last. `bytes` from `start` to `end` is the payload; it may be
 * overwritten after the call unless `owned`.
 */
export type OnFrame = (
  type: number,
  flags: number,
  id: number,
  bytes: Buffer,
  start: number,
  end: number,
  owned: boolean,
) => void

/**
 * Cuts a byte stream into frames.
 *
 * A frame that lies whole in a chunk is handed on where it lies. DATA that is split is handed on as it comes: it is copied once, to where
 * its call wants it. Any other frame that is split is put together in a buffer of its own, so that never more than one payload waits here.
 */
export class FrameDecoder {
  readonly #onFrame: OnFrame
  readonly #prefix = Buffer.alloc(PREFIX_BYTES)
  #prefixBytes = 0
  #payload: Buffer | undefined
  #payloadBytes = 0
  /** What is still to come of the DATA whose first part has been handed on. */
  #dataBytes = 0
  #stopped = false
  payloadBytesMax: number = LIMIT.payloadBytes

  constructor(onFrame: OnFrame) {
    this.#onFrame = onFrame
  }

  /** No frame is handed on any more, even of the chunk at hand. */
  stop(): void {
    this.#stopped = true
    this.#payload = undefined
  }

  /**
   * Takes the next `length` bytes of the stream.
   *
   * @throws ProtocolError of the code `FRAME_TOO_LARGE`, and what `onFrame` throws
   */
  push(chunk: Buffer, length: number): void {
    let at = 0
    if (this.#payload !== undefined) at = this.#fillPayload(this.#payload, chunk, 0, length)
    else if (this.#dataBytes > 0) at = this.#passData(chunk, 0, length)
    else if (this.#prefixBytes > 0) at = this.#fillPrefix(chunk, length)
    while (length - at >= PREFIX_BYTES && !this.#stopped) {
      const bytes = this.#lengthAt(chunk, at)
      const start = at + PREFIX_BYTES
      if (length - start < bytes) {
        chunk.copy(this.#prefix, 0, at, start)
        this.#begin(bytes, chunk, start, length)
        return
      }
      at = start + bytes
      this.#emit(chunk, start - PREFIX_BYTES, chunk, start, at, false)
    }
    if (at < length && !this.#stopped) {
      chunk.copy(this.#prefix, 0, at, length)
      this.#prefixBytes = length - at
    }
  }

  #lengthAt(chunk: Buffer, at: number): number {
    const bytes = u32(chunk, at)
    if (bytes > this.payloadBytesMax) {
      throw new ProtocolError(
        'FRAME_TOO_LARGE',
        `a frame of ${bytes} bytes is above the limit of ${this.payloadBytesMax}`,
      )
    }
    return bytes
  }

  /** Of the frame whose prefix is kept, the first bytes are here. Returns where the next frame starts. */
  #begin(bytes: number, chunk: Buffer, from: number, length: number): number {
    this.#prefixBytes = 0
    if (this.#prefix[4] === TYPE.DATA) {
      this.#dataBytes = bytes
      return this.#passData(chunk, from, length)
    }
    const payload = Buffer.allocUnsafeSlow(bytes)
    tookBytes(bytes)
    this.#payload = payload
    this.#payloadBytes = 0
    return this.#fillPayload(payload, chunk, from, length)
  }

  #passData(chunk: Buffer, from: number, length: number): number {
    const end = Math.min(length, from + this.#dataBytes)
    if (end === from) return end
    this.#dataBytes -= end - from
    const flags = this.#prefix[5] ?? 0
    const partFlags = this.#dataBytes > 0 ? flags & ~END : flags
    if (!this.#stopped) {
      this.#onFrame(TYPE.DATA, partFlags, u32(this.#prefix, 8), chunk, from, end, false)
    }
    return end
  }

  /** Completes a prefix begun earlier, and perhaps its payload. Returns where the next frame starts. */
  #fillPrefix(chunk: Buffer, length: number): number {
    const taken = Math.min(PREFIX_BYTES - this.#prefixBytes, length)
    chunk.copy(this.#prefix, this.#prefixBytes, 0, taken)
    this.#prefixBytes += taken
    if (this.#prefixBytes < PREFIX_BYTES) return length
    const bytes = this.#lengthAt(this.#prefix, 0)
    this.#prefixBytes = 0
    if (length - taken >= bytes) {
      this.#emit(this.#prefix, 0, chunk, taken, taken + bytes, false)
      return taken + bytes
    }
    return this.#begin(bytes, chunk, taken, length)
  }

  #fillPayload(payload: Buffer, chunk: Buffer, from: number, length: number): number {
    const taken = Math.min(payload.length - this.#payloadBytes, length - from)
    chunk.copy(payload, this.#payloadBytes, from, from + taken)
    this.#payloadBytes += taken
    if (this.#payloadBytes === payload.length) {
      this.#payload = undefined
      this.#emit(this.#prefix, 0, payload, 0, payload.length, true)
    }
    return from + taken
  }

  #emit(
    prefix: Buffer,
    at: number,
    bytes: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): void {
    if (this.#stopped) return
    this.#onFrame(
      prefix[at + 4] ?? 0,
      prefix[at + 5] ?? 0,
      u32(prefix, at + 8),
      bytes,
      start,
      end,
      owned,
    )
  }
}

/** The big-endian number of four bytes at `at`. */
export function u32(bytes: Buffer, at: number): number {
  return (
    (bytes[at] ?? 0) * 0x1_00_00_00 +
    (((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
  )
}

/** The big-endian number of two bytes at `at`. */
export function u16(bytes: Buffer, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
}
