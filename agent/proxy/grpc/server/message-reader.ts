import type { BodyBudget } from '#agent/sockets/index.ts'
import { pushback, STATUS, StatusError } from './status.ts'

/** Bytes before each message: a flag, and the length. */
export const PREFIX_BYTES = 5

/** Gets each message once it is whole. */
export interface MessageSink {
  /** The bytes are the receiver's. */
  message(bytes: Buffer, compressed: boolean): void
}

export interface MessageLimits {
  readonly messageBytesMax: number
  /** For what is held of messages that are not whole yet. */
  readonly budget: BodyBudget
}

/**
 * Cuts a request's body into messages ("Length-Prefixed-Message" of gRPC over HTTP/2).
 *
 * A message that lies whole in a chunk is handed on where it is. Of one that is cut the parts are gathered in a buffer that
 * grows with what has come, never with what was announced.
 */
export class MessageReader {
  readonly #sink: MessageSink
  readonly #limits: MessageLimits
  #held: Buffer = NO_BYTES
  #heldBytes = 0
  #closed = false
  /** Until when gathering goes on: the prefix, then with the message behind it. */
  #wantedBytes = PREFIX_BYTES

  constructor(sink: MessageSink, limits: MessageLimits) {
    this.#sink = sink
    this.#limits = limits
  }

  /** True when part of a message has come. */
  get partial(): boolean {
    return this.#heldBytes > 0
  }

  /** @throws StatusError `INTERNAL`, `RESOURCE_EXHAUSTED`; the reader must be closed then */
  push(chunk: Buffer): void {
    let at = 0
    while (this.#heldBytes > 0 && at < chunk.length) at = this.#resume(chunk, at)
    while (chunk.length - at >= PREFIX_BYTES) {
      const end = at + PREFIX_BYTES + this.#check(chunk, at)
      if (end > chunk.length) break
      this.#sink.message(chunk.subarray(at + PREFIX_BYTES, end), chunk[at] === 1)
      at = end
    }
    // A message may have ended its call, and nobody would give back what is held from then on.
    if (at < chunk.length && !this.#closed) this.#hold(chunk, at)
  }

  /** Gives back what is held, for good. Idempotent. */
  close(): void {
    this.#closed = true
    this.#release()
  }

  #release(): void {
    this.#limits.budget.give(this.#held.length)
    this.#held = NO_BYTES
    this.#heldBytes = 0
  }

  /** Adds to the message that an earlier chunk cut; returns where the next one starts. */
  #resume(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#wantedBytes - this.#heldBytes, chunk.length - at)
    this.#grow(this.#heldBytes + taken)
    chunk.copy(this.#held, this.#heldBytes, at, at + taken)
    this.#heldBytes += taken
    if (this.#heldBytes === PREFIX_BYTES) {
      this.#wantedBytes = PREFIX_BYTES + this.#check(this.#held, 0)
    }
    if (this.#heldBytes === this.#wantedBytes) {
      const whole = this.#held
      const bytes = whole.subarray(PREFIX_BYTES, this.#heldBytes)
      this.#release()
      this.#sink.message(bytes, whole[0] === 1)
    }
    return at + taken
  }

  #hold(chunk: Buffer, at: number): void {
    const bytes = chunk.length - at
    this.#wantedBytes = PREFIX_BYTES
    if (bytes >= PREFIX_BYTES) this.#wantedBytes += lengthAt(chunk, at)
    this.#grow(bytes)
    this.#heldBytes = chunk.copy(this.#held, 0, at)
  }

  #grow(bytes: number): void {
    const before = this.#held
    if (bytes <= before.length) return
    const room = Math.min(this.#wantedBytes, Math.max(ROOM_BYTES_MIN, bytes * GROWTH))
    if (!this.#limits.budget.take(room - before.length)) throw new StatusError(BUSY)
    this.#held = Buffer.allocUnsafe(room)
    before.copy(this.#held, 0, 0, this.#heldBytes)
  }

  /** Length of the message whose prefix is there. */
  #check(buffer: Buffer, at: number): number {
    const { messageBytesMax } = this.#limits
    const flag = buffer[at] ?? 0
    if (flag > 1) {
      throw new StatusError({ code: STATUS.internal, message: `message with flag ${flag}` })
    }
    const bytes = lengthAt(buffer, at)
    if (bytes > messageBytesMax) {
      const message = `message of ${bytes} bytes, at most ${messageBytesMax} are taken`
      throw new StatusError({ code: STATUS.resourceExhausted, message })
    }
    return bytes
  }
}

function lengthAt(buffer: Buffer, at: number): number {
  return buffer.readUInt32BE(at + 1)
}

const NO_BYTES = Buffer.alloc(0)
const ROOM_BYTES_MIN = 256
/** Each copy makes room for this many times what has come. */
const GROWTH = 4

const BUSY = {
  code: STATUS.resourceExhausted,
  message: 'this node holds as many bytes of requests as it may',
  trailers: ['shoal-retry', 'true', ...pushback(1_000)],
}
