import { END, PREFIX_BYTES, TYPE } from './protocol.ts'

/** What a `FrameWriter` writes to: the part of `net.Socket` that it needs. */
export interface ByteSink {
  write(bytes: Uint8Array, done?: () => void): boolean
  cork(): void
  uncork(): void
  readonly writableLength: number
}

const BATCH_BYTES = 65_536
/** Above this a body is handed to the socket where it lies, in place of being copied into the batch. */
const COPY_BYTES_MAX = 16_384

/**
 * Encodes frames into one batch that is written once per turn of the loop.
 *
 * The batch's buffer is used again as soon as the kernel has taken it, which is nearly always at once. With few calls in flight a
 * batch goes out when the running callback and its promises are done (best latency); with many, at the end of the
 * loop's turn (fewer, larger writes).
 */
export class FrameWriter {
  readonly #sink: ByteSink
  readonly #manyInFlight: () => boolean
  #batch = Buffer.allocUnsafeSlow(BATCH_BYTES)
  /** The batch's bytes from here to `#used` are encoded and not written. */
  #from = 0
  #used = 0
  #scheduled = false
  #closed = false
  readonly #flushBound = (): void => {
    this.#scheduled = false
    this.flush()
  }

  constructor(sink: ByteSink, manyInFlight: () => boolean) {
    this.#sink = sink
    this.#manyInFlight = manyInFlight
  }

  /** Bytes that the kernel has not taken yet. */
  get backlogBytes(): number {
    return this.#used - this.#from + this.#sink.writableLength
  }

  close(): void {
    this.#closed = true
    this.#used = this.#from
  }

  /** A frame whose payload is `text` behind `first` (one byte, -1 for none). */
  text(type: number, id: number, first: number, text: string): void {
    const lead = first < 0 ? 0 : 1
    const at = this.#room(PREFIX_BYTES + 1 + text.length * 3)
    if (lead === 1) this.#batch[at + PREFIX_BYTES] = first
    const bytes = lead + this.#batch.utf8Write(text, at + PREFIX_BYTES + lead)
    this.#prefix(at, type, 0, id, bytes)
    this.#used = at + PREFIX_BYTES + bytes
  }

  window(id: number, bytes: number): void {
    const at = this.#room(PREFIX_BYTES + 4)
    this.#prefix(at, TYPE.WINDOW, 0, id, 4)
    this.#batch.writeUInt32BE(bytes, at + PREFIX_BYTES)
    this.#used = at + PREFIX_BYTES + 4
  }

  /** RESPONSE with a body given as text that is known to fit in one frame. */
  responseText(id: number, flags: number, status: number, head: string, body: string): void {
    const at = this.#room(PREFIX_BYTES + 4 + (head.length + body.length) * 3)
    const start = at + PREFIX_BYTES + 4
    const headBytes = this.#batch.utf8Write(head, start)
    const bodyBytes = this.#batch.utf8Write(body, start + headBytes)
    this.#responsePrefix(at, flags, id, status, headBytes, bodyBytes)
    this.#used = start + headBytes + bodyBytes
  }

  /**
   * RESPONSE with the bytes of `body` from `from` to `to`.
   *
   * @param done - called when the kernel has all of `body` up to there, or never will
   * @returns false: the bytes may be overwritten at once, and `done` is not called
   */
  responseBytes(
    id: number,
    flags: number,
    status: number,
    head: string,
    body: Uint8Array,
    from: number,
    to: number,
    done?: () => void,
  ): boolean {
    const at = this.#room(PREFIX_BYTES + 4 + head.length * 3 + Math.min(to - from, COPY_BYTES_MAX))
    const start = at + PREFIX_BYTES + 4
    const headBytes = this.#batch.utf8Write(head, start)
    this.#responsePrefix(at, flags, id, status, headBytes, to - from)
    this.#used = start + headBytes
    return this.#body(body, from, to, done)
  }

  /** DATA, with `done` and what it returns as for `responseBytes`. */
  data(
    id: number,
    flags: number,
    body: Uint8Array,
    from: number,
    to: number,
    done?: () => void,
  ): boolean {
    const at = this.#room(PREFIX_BYTES + Math.min(to - from, COPY_BYTES_MAX))
    this.#prefix(at, TYPE.DATA, flags, id, to - from)
    this.#used = at + PREFIX_BYTES
    return this.#body(body, from, to, done)
  }

  pong(id: number, body: Uint8Array, from: number, to: number): void {
    const at = this.#room(PREFIX_BYTES + to - from)
    this.#prefix(at, TYPE.PONG, 0, id, to - from)
    this.#used = at + PREFIX_BYTES
    this.#body(body, from, to)
  }

  /** Writes what has been encoded so far. */
  flush(): void {
    if (this.#used === this.#from || this.#closed) return
    this.#sink.write(this.#batch.subarray(this.#from, this.#used))
    this.#recycle()
  }

  /** What the kernel has not taken stays where it is: the batch goes on behind it as long as there is room. */
  #recycle(): void {
    if (this.#sink.writableLength > 0 && this.#batch.length - this.#used >= COPY_BYTES_MAX) {
      this.#from = this.#used
      return
    }
    if (this.#sink.writableLength > 0 || this.#batch.length > BATCH_BYTES) {
      this.#batch = Buffer.allocUnsafeSlow(BATCH_BYTES)
    }
    this.#from = 0
    this.#used = 0
  }

  #body(body: Uint8Array, from: number, to: number, done?: () => void): boolean {
    // The last part of a large body may be small: `done` has to wait for those before it.
    const asked = done !== undefined && body.length > COPY_BYTES_MAX
    if (to - from <= COPY_BYTES_MAX && !asked) {
      this.#batch.set(from === 0 && to === body.length ? body : body.subarray(from, to), this.#used)
      this.#used += to - from
      return false
    }
    if (this.#closed) return false
    // One writev of what is in the batch and of the body where it lies.
    this.#sink.cork()
    this.#sink.write(this.#batch.subarray(this.#from, this.#used))
    this.#sink.write(body.subarray(from, to), done)
    this.#sink.uncork()
    this.#recycle()
    return done !== undefined
  }

  /** Makes room for `bytes` in the batch, and sees to it that it will be written. Returns where they go. */
  #room(bytes: number): number {
    if (this.#used + bytes > this.#batch.length) {
      this.flush()
      if (this.#used + bytes > this.#batch.length) {
        this.#batch = Buffer.allocUnsafeSlow(Math.max(bytes, BATCH_BYTES))
        this.#from = 0
        this.#used = 0
      }
    }
    if (!this.#scheduled && !this.#closed) {
      this.#scheduled = true
      if (this.#manyInFlight()) setImmediate(this.#flushBound)
      else process.nextTick(this.#flushBound)
    }
    return this.#used
  }

  #responsePrefix(
    at: number,
    flags: number,
    id: number,
    status: number,
    headBytes: number,
    bodyBytes: number,
  ): void {
    this.#prefix(at, TYPE.RESPONSE, flags & END, id, 4 + headBytes + bodyBytes)
    const batch = this.#batch
    batch[at + 12] = status >>> 8
    batch[at + 13] = status & 0xff
    batch[at + 14] = headBytes >>> 8
    batch[at + 15] = headBytes & 0xff
  }

  #prefix(at: number, type: number, flags: number, id: number, bytes: number): void {
    const batch = this.#batch
    batch[at] = bytes >>> 24
    batch[at + 1] = bytes >>> 16
    batch[at + 2] = bytes >>> 8
    batch[at + 3] = bytes
    batch[at + 4] = type
    batch[at + 5] = flags
    batch[at + 6] = 0
    batch[at + 7] = 0
    batch[at + 8] = id >>> 24
    batch[at + 9] = id >>> 16
    batch[at + 10] = id >>> 8
    batch[at + 11] = id
  }
}
