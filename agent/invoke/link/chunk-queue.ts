/** Small chunks are gathered in buffers of at most this size. */
const GATHER_BYTES = 16 * 1024
/** And of at least this one. */
const FIRST_BYTES = 64

/**
 * Bytes in order, in few buffers however small the chunks are that they come in: a Buffer costs more than a hundred bytes beside
 * those that it holds, and the sender of the chunks need not be a friend.
 */
export class ChunkQueue {
  readonly #whole: Buffer[] = []
  /** The last buffer, to which more may be added; the first small chunk itself, until there is a second. */
  #last: Buffer | undefined
  #lastBytes = 0
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** The chunk must be the queue's own. */
  push(chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#lastBytes + chunk.length > GATHER_BYTES) this.#seal()
    if (chunk.length >= GATHER_BYTES) {
      this.#whole.push(chunk)
    } else if (this.#last === undefined) {
      this.#last = chunk
      this.#lastBytes = chunk.length
    } else {
      const last = this.#withRoom(this.#last, chunk.length)
      this.#lastBytes += chunk.copy(last, this.#lastBytes)
    }
  }

  /** The next bytes; undefined when there are none. */
  shift(): Buffer | undefined {
    if (this.#whole.length === 0) this.#seal()
    const chunk = this.#whole.shift()
    this.#bytes -= chunk?.length ?? 0
    return chunk
  }

  /** Grows as the bytes do: a reader that is quick takes a buffer with few bytes in it, and may keep it for long. */
  #withRoom(last: Buffer, bytes: number): Buffer {
    const needed = this.#lastBytes + bytes
    if (last.length >= needed) return last
    const size = Math.min(GATHER_BYTES, Math.max(FIRST_BYTES, needed * 2))
    // Memory of its own: what is kept of a pool keeps all of the pool.
    const larger = Buffer.allocUnsafeSlow(size)
    last.copy(larger, 0, 0, this.#lastBytes)
    this.#last = larger
    return larger
  }

  #seal(): void {
    if (this.#last === undefined) return
    this.#whole.push(this.#last.subarray(0, this.#lastBytes))
    this.#last = undefined
    this.#lastBytes = 0
  }
}
