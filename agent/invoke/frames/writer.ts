import { blocks } from '#agent/sockets/index.ts'
import { FRAME, HEADER_BYTES, END } from './format.ts'
import type { CancelReason } from './format.ts'
import { slabs } from './slabs.ts'
import type { PreparedHead } from '../model.ts'

/** Where batches go: a socket. Chunks are written in order; the writer does not touch a chunk again while `backlogBytes` is above 0. */
export interface FrameOutput {
  /** @param written - called when the kernel has taken the chunk, and with it all before it; or, with an error, the connection has ended */
  write(chunk: Buffer, written?: (error?: Error | null) => void): void
  /** Called around two or more writes that belong together. */
  cork(): void
  uncork(): void
  /** Bytes that the kernel has not taken yet. */
  readonly backlogBytes: number
}

/** A body up to this size is copied into the batch; a larger one is written from where it is. */
const COPIED_BYTES_MAX = 16 * 1024

/**
 * From this many calls in flight on, a batch waits until the loop has read what is ready, instead of the end of this tick: each read is
 * a tick of its own. With 32 callers about half of the calls are on the runner's side at any time, so 16 was too high: most of
 * them were written one by one.
 */
const LAZY_FROM = 8

/**
 * Encodes frames into batches: one write for all frames of a turn of the event loop.
 *
 * Frames go into a slab of scratch memory that is given back as soon as the kernel has taken its bytes, so an idle
 * writer owns nothing. With few calls in flight the batch ends with the current tick (lowest latency), with many it
 * waits for `setImmediate` (fewer, larger writes).
 */
export class FrameWriter {
  /** Told by the owner; chooses between the two ways of batching. */
  inFlight = 0
  readonly #output: FrameOutput
  #slab: Buffer | undefined
  /** The slab's bytes [from, at) are encoded and not written. */
  #from = 0
  #at = 0
  #chunks: Buffer[] = []
  /** To be called when the batch has been written. */
  #written: (() => void)[] = []
  #scheduled = false
  /** Will be told when the kernel has taken what is written. */
  #waiting = false
  #closed = false

  constructor(output: FrameOutput) {
    this.#output = output
  }

  /** Bytes written that the kernel has not taken yet. */
  get backlogBytes(): number {
    return this.#output.backlogBytes
  }

  /**
   * @param head - method, path, query, names and values joined by "\n"
   * @param headBytes - its length in UTF-8
   * @param body - first bytes of the body: `body[0, bodyBytes)`; must stay unchanged until written
   * @param written - called when the kernel has taken it
   */
  request(
    id: number,
    flags: number,
    deadlineMs: number,
    head: string,
    headBytes: number,
    body: Buffer,
    bodyBytes: number,
    written?: () => void,
  ): void {
    const slab = this.#requestHeader(id, flags, deadlineMs, headBytes, bodyBytes)
    slab.write(head, this.#at)
    this.#at += headBytes
    if (bodyBytes > 0) this.#body(slab, body, 0, bodyBytes)
    if (written !== undefined) this.#written.push(written)
    this.#schedule()
  }

  /**
   * A whole request, of which most is there already.
   *
   * @param requestId - of `PREPARED_ID_BYTES` characters, none of them outside of ASCII
   * @param body - must stay unchanged until written
   */
  preparedRequest(
    id: number,
    deadlineMs: number,
    { bytes, idAt }: PreparedHead,
    requestId: string,
    body: Buffer,
  ): void {
    const slab = this.#requestHeader(id, END, deadlineMs, bytes.length, body.length)
    slab.set(bytes, this.#at)
    slab.write(requestId, this.#at + idAt, 'latin1')
    this.#at += bytes.length
    if (body.length > 0) this.#body(slab, body, 0, body.length)
    this.#schedule()
  }

  /**
   * @param head - names and values joined by "\n"
   * @param headBytes - its length in UTF-8
   * @param body - first bytes of the body: `body[0, bodyBytes)`; must stay unchanged until written
   */
  response(
    id: number,
    flags: number,
    status: number,
    head: string,
    headBytes: number,
    body: Buffer,
    bodyBytes: number,
  ): void {
    const slab = this.#reserve(HEADER_BYTES + 4 + headBytes)
    let at = writeHeader(slab, this.#at, 4 + headBytes + bodyBytes, FRAME.response, flags, id)
    at = writeU16(slab, at, status)
    at = writeU16(slab, at, headBytes)
    if (headBytes > 0) slab.write(head, at)
    this.#at = at + headBytes
    if (bodyBytes > 0) {
      this.#body(slab, body, 0, bodyBytes)
      if (bodyBytes === body.length && bodyBytes > COPIED_BYTES_MAX)
        this.#written.push(() => blocks.give(body))
    }
    this.#schedule()
  }

  /**
   * `body[start, end)`; must stay unchanged until written.
   *
   * @param spent - nobody needs the body after this: its memory may be used again. What is before `start` was sent by the same writer
   */
  data(
    id: number,
    flags: number,
    body: Buffer,
    start: number,
    end: number,
    spent: boolean = false,
  ): void {
    const slab = this.#reserve(HEADER_BYTES)
    this.#at = writeHeader(slab, this.#at, end - start, FRAME.data, flags, id)
    const copied = end === start || this.#body(slab, body, start, end)
    if (spent) this.#spend(body, copied, start)
    this.#schedule()
  }

  /** The empty DATA that ends the body. */
  end(id: number): void {
    const slab = this.#reserve(HEADER_BYTES)
    this.#at = writeHeader(slab, this.#at, 0, FRAME.data, END, id)
    this.#schedule()
  }

  window(id: number, consumedBytes: number): void {
    const slab = this.#reserve(HEADER_BYTES + 4)
    this.#at = writeU32(slab, writeHeader(slab, this.#at, 4, FRAME.window, 0, id), consumedBytes)
    this.#schedule()
  }

  cancel(id: number, reason: CancelReason): void {
    const slab = this.#reserve(HEADER_BYTES + 1)
    const at = writeHeader(slab, this.#at, 1, FRAME.cancel, 0, id)
    slab[at] = reason
    this.#at = at + 1
    this.#schedule()
  }

  /** WELCOME, INIT, SHUTDOWN, PING, PONG: the payload as it is; one above 16 KiB must stay unchanged until written. */
  control(type: number, id: number, payload: Buffer): void {
    const copied = payload.length <= COPIED_BYTES_MAX ? payload.length : 0
    const slab = this.#reserve(HEADER_BYTES + copied)
    this.#at = writeHeader(slab, this.#at, payload.length, type, 0, id)
    if (payload.length > 0) this.#body(slab, payload, 0, payload.length)
    this.#schedule()
  }

  /** Writes what is encoded now, without waiting for the batch's end. */
  readonly flush = (): void => {
    this.#scheduled = false
    if (this.#closed) return
    this.#cut()
    const chunks = this.#chunks
    const output = this.#output
    const written = this.#written
    const last = chunks.length - 1
    if (last > 0) output.cork()
    for (let at = 0; at < last; at += 1) output.write(chunks[at] ?? NO_BYTES)
    if (written.length > 0) {
      this.#written = []
      output.write(chunks[last] ?? NO_BYTES, () => written.forEach(call))
    } else if (last >= 0) output.write(chunks[last] ?? NO_BYTES)
    if (last > 0) output.uncork()
    chunks.length = 0
    this.#giveSlab()
  }

  /** Drops what is not written; later frames are ignored. */
  close(): void {
    this.#closed = true
    this.#chunks = []
    this.#written = []
    // Not given back: the socket may still refer to it.
    this.#slab = undefined
  }

  readonly #taken = (error?: Error | null): void => {
    this.#waiting = false
    // A connection that has ended says so of whatever is written: to ask it again would have no end.
    if (!error && !this.#scheduled) this.#giveSlab()
  }

  /** Now, or when the kernel has taken its bytes: perhaps no other batch comes for long. */
  #giveSlab(): void {
    if (this.#slab === undefined) return
    if (this.#output.backlogBytes === 0) {
      slabs.give(this.#slab)
      this.#slab = undefined
    } else if (!this.#waiting) {
      this.#waiting = true
      this.#output.write(NO_BYTES, this.#taken)
    }
  }

  /** Of a REQUEST, up to its head; there is room for that behind it. */
  #requestHeader(
    id: number,
    flags: number,
    deadlineMs: number,
    headBytes: number,
    bodyBytes: number,
  ): Buffer {
    const slab = this.#reserve(HEADER_BYTES + 6 + headBytes)
    let at = writeHeader(slab, this.#at, 6 + headBytes + bodyBytes, FRAME.request, flags, id)
    at = writeU32(slab, at, deadlineMs)
    this.#at = writeU16(slab, at, headBytes)
    return slab
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    if (this.inFlight < LAZY_FROM) process.nextTick(this.flush)
    else setImmediate(this.flush)
  }

  /** A slab with at least `bytes` free from `#at` on. */
  #reserve(bytes: number): Buffer {
    let slab = this.#slab
    if (slab !== undefined && slab.length - this.#at >= bytes) return slab
    if (slab !== undefined) this.#cut()
    // The old slab is left to the garbage collector: chunks in waiting refer to it.
    slab = slabs.take(bytes)
    this.#slab = slab
    this.#from = 0
    this.#at = 0
    return slab
  }

  /** Moves the slab's unwritten bytes to the list of chunks. */
  #cut(): void {
    if (this.#slab === undefined || this.#from === this.#at) return
    this.#chunks.push(this.#slab.subarray(this.#from, this.#at))
    this.#from = this.#at
  }

  /** @returns whether it was copied: the batch does not refer to the body then */
  #body(slab: Buffer, body: Buffer, start: number, end: number): boolean {
    const bytes = end - start
    if (bytes <= COPIED_BYTES_MAX && slab.length - this.#at >= bytes) {
      this.#at += body.copy(slab, this.#at, start, end)
      return true
    }
    this.#cut()
    this.#chunks.push(bytes === body.length ? body : body.subarray(start, end))
    return false
  }

  /**
   * Gives the body's memory back as soon as nothing that is to be written refers to it. What waits for that costs two hundred bytes, so a
   * piece of few bytes that was copied must not wait: a peer that does not read would gather thousands of them.
   */
  #spend(body: Buffer, copied: boolean, start: number): void {
    if (copied && start === 0) blocks.give(body)
    // Parts that were sent before this one may not have been copied. Small bodies have no block of their own, and are left to the
    // garbage collector.
    else if (!copied || body.length > COPIED_BYTES_MAX) this.#written.push(() => blocks.give(body))
  }
}

const NO_BYTES = Buffer.alloc(0)

function call(told: () => void): void {
  told()
}

function writeHeader(
  slab: Buffer,
  at: number,
  payloadBytes: number,
  type: number,
  flags: number,
  id: number,
): number {
  writeU32(slab, at, payloadBytes)
  slab[at + 4] = type
  slab[at + 5] = flags
  slab[at + 6] = 0
  slab[at + 7] = 0
  return writeU32(slab, at + 8, id)
}

/** Byte stores: faster than `writeUInt16BE` with its checks. */
function writeU16(slab: Buffer, at: number, value: number): number {
  slab[at] = value >>> 8
  slab[at + 1] = value
  return at + 2
}

/** As `writeU16`. */
function writeU32(slab: Buffer, at: number, value: number): number {
  slab[at] = value >>> 24
  slab[at + 1] = value >>> 16
  slab[at + 2] = value >>> 8
  slab[at + 3] = value
  return at + 4
}
