import { tookBytes } from './body-memory.ts'

/** Taken ahead of what has come, or as much as has come: a length that is only announced shall not cost its memory. */
const AHEAD_BYTES_MAX = 1_048_576
const FIRST_BYTES = 131_072

/** A body that comes in parts, put together where it stays: one copy and one piece of memory when its length is known. */
export class GrowingBody {
  readonly #expected: number
  #bytes = EMPTY
  length = 0
  /** Of memory that it takes. */
  get takenBytes(): number {
    return this.#bytes.length
  }

  /** @param expected - its length as announced, in bytes; NaN: none was */
  constructor(expected: number) {
    this.#expected = expected
  }

  append(part: Buffer): void {
    const needed = this.length + part.length
    if (needed > this.#bytes.length) this.#grow(needed)
    part.copy(this.#bytes, this.length)
    this.length = needed
  }

  /** The whole body; nothing is kept of it here. */
  take(): Buffer {
    const body = this.#bytes.subarray(0, this.length)
    this.#bytes = EMPTY
    this.length = 0
    return body
  }

  #grow(needed: number): void {
    const rest = this.#expected - needed
    const ahead =
      rest >= 0 ? Math.min(rest, Math.max(needed, AHEAD_BYTES_MAX)) : Math.max(needed, FIRST_BYTES)
    const grown = Buffer.allocUnsafeSlow(needed + ahead)
    tookBytes(grown.length)
    this.#bytes.copy(grown, 0, 0, this.length)
    this.#bytes = grown
  }
}

const EMPTY = Buffer.alloc(0)
