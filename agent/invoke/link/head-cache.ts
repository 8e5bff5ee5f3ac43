import { responseHeaders } from '../frames/index.ts'
import type { HeaderList } from '../model.ts'

const KEPT_BYTES_MAX = 512

/** Remembers the last head: most answers of a function have the same one, and comparing bytes is cheaper than splitting text. */
export class HeadCache {
  readonly #bytes = Buffer.alloc(KEPT_BYTES_MAX)
  #length = 0
  #headers: HeaderList = []

  /** @throws ProtocolError */
  read(buffer: Buffer, start: number, end: number): HeaderList {
    const length = end - start
    if (length === this.#length && this.#isLast(buffer, start)) return this.#headers
    const headers = responseHeaders(buffer, start, end)
    if (length <= KEPT_BYTES_MAX) {
      buffer.copy(this.#bytes, 0, start, end)
      this.#length = length
      this.#headers = headers
    }
    return headers
  }

  /** So few bytes are compared before a call to the machine's own comparison has begun. */
  #isLast(buffer: Buffer, start: number): boolean {
    let at = 0
    while (at < this.#length && buffer[start + at] === this.#bytes[at]) at++
    return at === this.#length
  }
}
