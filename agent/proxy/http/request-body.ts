import { Readable } from 'node:stream'
import { BlockLease, blocks, room } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'

/** Where the bytes of a request's body go. */
export interface BodyTarget {
  /** Where the next bytes may be read to directly, if anywhere: what is read there is told to `filled`. */
  room(): Buffer | undefined
  filled(bytes: number): void
  /** `buffer[start, end)` is the body's; valid during this call only. */
  bytes(buffer: Buffer, start: number, end: number): void
  /** The body is whole. */
  end(): void
}

/** The fault for a request body above the limit. */
export function bodyTooLarge(bytesMax: number): Fault {
  return new Fault('BODY_TOO_LARGE', `the body is larger than ${bytesMax} bytes`, { bytesMax })
}

/** The fault for a body in the background while others take the memory for it. */
export function tooManyBodies(): Fault {
  return new Fault('FUNCTION_SATURATED', 'too many bodies are being received', {
    retryAfterMs: 1_000,
  })
}

/** The fault for a body that waited for memory in vain. */
export function noMemory(): Fault {
  return new Fault('FUNCTION_UNAVAILABLE', 'this node has no memory for the body at the moment', {
    retryAfterMs: 1_000,
  })
}

/** A whole body whose length is known and small. */
export class CountedBody implements BodyTarget {
  readonly #bytes: number
  readonly #done: (body: Buffer, lease: BlockLease) => void
  #body: Buffer = NO_BYTES
  #received = 0

  /** @param done - gets the body, and what gives back its memory */
  constructor(bytes: number, done: (body: Buffer, lease: BlockLease) => void) {
    this.#bytes = bytes
    this.#done = done
  }

  room(): Buffer | undefined {
    return this.#received === 0 ? undefined : this.#body.subarray(this.#received)
  }

  filled(bytes: number): void {
    this.#received += bytes
  }

  bytes(buffer: Buffer, start: number, end: number): void {
    if (this.#received === 0) this.#body = blocks.take(this.#bytes)
    this.#received += buffer.copy(this.#body, this.#received, start, end)
  }

  end(): void {
    this.#done(this.#body, new BlockLease(this.#body))
  }
}

/** A whole body that says itself where it ends, up to `bytesMax`. In one buffer that grows: its pieces may be of one byte each. */
export class GatheredBody implements BodyTarget {
  readonly #bytesMax: number
  readonly #done: (body: Buffer | Fault) => void
  #body: Buffer = NO_BYTES
  #received = 0
  #failed = false

  constructor(bytesMax: number, done: (body: Buffer | Fault) => void) {
    this.#bytesMax = bytesMax
    this.#done = done
  }

  room(): undefined {}

  filled(): void {}

  bytes(buffer: Buffer, start: number, end: number): void {
    if (this.#failed) return
    const needed = this.#received + end - start
    if (needed <= this.#bytesMax) {
      if (needed > this.#body.length) this.#grow(needed)
      buffer.copy(this.#body, this.#received, start, end)
      this.#received = needed
      return
    }
    this.#failed = true
    this.#body = NO_BYTES
    this.#done(bodyTooLarge(this.#bytesMax))
  }

  end(): void {
    if (this.#failed) return
    const body = this.#body.subarray(0, this.#received)
    // It may be kept for long, and counts as its own bytes then.
    this.#done(body.length === this.#body.length ? body : Buffer.from(body))
  }

  #grow(needed: number): void {
    const grown = Buffer.allocUnsafeSlow(
      Math.min(Math.max(needed, this.#body.length * 2), this.#bytesMax),
    )
    blocks.tookNew(grown.length)
    this.#body.copy(grown, 0, 0, this.#received)
    this.#body = grown
  }
}

/** The connection that a streamed body is read from. */
export interface BodySource {
  /** Goes on reading, or stops. */
  setFlowing(flowing: boolean): void
}

/**
 * A request's body as a stream that fails with `BODY_TOO_LARGE` above `bytesMax`, at the reader's pace.
 *
 * Destroying it leaves the connection alone, so that the answer can still be sent.
 */
export class StreamedBody extends Readable implements BodyTarget {
  readonly #source: BodySource
  readonly #bytesMax: number
  #bytes = 0
  /** Memory that the socket is read into; what is well filled is handed to the reader as it is. */
  #block: Buffer | undefined
  /** How much the next read may bring; 0: so little that it shall not have memory of its own. */
  #roomBytes = 0
  /** Small pieces for a reader that is behind: each costs it a hundred bytes, so it gets them together. */
  #small: Buffer = NO_BYTES
  #smallBytes = 0
  /** It has asked for more than there was, so it is not behind. */
  #hungry = false

  constructor(source: BodySource, bytesMax: number) {
    super({ highWaterMark: HIGH_WATER_BYTES })
    this.#source = source
    this.#bytesMax = bytesMax
  }

  room(): Buffer | undefined {
    if (this.destroyed || this.#roomBytes === 0) return undefined
    this.#block ??= blocks.take(this.#roomBytes)
    return this.#block
  }

  filled(bytes: number): void {
    const block = this.#block
    if (block === undefined) return
    // The bytes of a trickle must not each hold a block.
    if (bytes * 4 < block.length) return this.bytes(block, 0, bytes)
    this.#block = undefined
    this.#roomBytes = roomBytesAfter(bytes)
    if (this.#counts(bytes)) this.#pass(block.subarray(0, bytes))
  }

  bytes(buffer: Buffer, start: number, end: number): void {
    const bytes = end - start
    this.#roomBytes = roomBytesAfter(bytes)
    if (!this.#counts(bytes)) return
    if (bytes <= SMALL_BYTES_MAX && this.readableLength > 0 && !this.#hungry) {
      return this.#gather(buffer, start, end)
    }
    const chunk = blocks.take(bytes)
    buffer.copy(chunk, 0, start, end)
    this.#pass(chunk)
  }

  end(): void {
    if (this.destroyed) return
    this.#passSmall()
    this.#small = NO_BYTES
    this.push(null)
  }

  /** Every way to read from a stream comes through here. */
  override read(bytes?: number): Buffer | null {
    if (bytes !== 0) this.#passSmall()
    const read: Buffer | null = super.read(bytes)
    if (bytes !== 0) this.#hungry = read === null && this.readableLength > 0
    return read
  }

  override _read(): void {
    this.#source.setFlowing(true)
  }

  #counts(bytes: number): boolean {
    if (this.destroyed) return false
    this.#bytes += bytes
    if (this.#bytes <= this.#bytesMax) return true
    this.destroy(bodyTooLarge(this.#bytesMax))
    return false
  }

  #gather(buffer: Buffer, start: number, end: number): void {
    if (this.#small.length === 0) this.#small = Buffer.allocUnsafeSlow(GATHERED_BYTES)
    if (this.#smallBytes + end - start > GATHERED_BYTES) this.#passSmall()
    this.#smallBytes += buffer.copy(this.#small, this.#smallBytes, start, end)
  }

  #passSmall(): void {
    const bytes = this.#smallBytes
    if (bytes === 0 || this.destroyed) return
    this.#smallBytes = 0
    const chunk = blocks.take(bytes)
    this.#small.copy(chunk, 0, 0, bytes)
    this.#push(chunk)
  }

  #pass(chunk: Buffer): void {
    this.#passSmall()
    this.#push(chunk)
  }

  #push(chunk: Buffer): void {
    if (!this.push(chunk)) this.#source.setFlowing(false)
  }
}

/** What is left of a body that nobody wants, up to a limit: reading for ever would be a gift. */
export class DrainedBody implements BodyTarget {
  readonly #onTooMuch: () => void
  #left: number

  constructor(bytesMax: number, onTooMuch: () => void) {
    this.#left = bytesMax
    this.#onTooMuch = onTooMuch
  }

  room(): undefined {}

  filled(): void {}

  bytes(_: Buffer, start: number, end: number): void {
    this.#left -= end - start
    if (this.#left < 0) this.#onTooMuch()
  }

  end(): void {}
}

const NO_BYTES = Buffer.alloc(0)
const HIGH_WATER_BYTES = 64 * 1024
/** Up to here a piece is copied to others of its kind while the reader is behind. */
const SMALL_BYTES_MAX = 2 * 1024
/** So many of them at once, at most. */
const GATHERED_BYTES = 16 * 1024

/** A sender that fills a read is given more room: fewer reads, fewer frames. */
function roomBytesAfter(bytes: number): number {
  if (bytes >= 48 * 1024) return Math.min(128 * 1024, room.windowBytes)
  return bytes >= 32 * 1024 ? 64 * 1024 : 0
}
