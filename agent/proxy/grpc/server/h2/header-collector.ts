import type { BodyBudget } from '#agent/sockets/index.ts'
import { CODE, ConnectionError, FLAG } from './format.ts'
import { type DecodedHeader, HeaderDecoder } from './header-decoder.ts'

/** A header that is complete. */
export interface CollectedHeader {
  readonly id: number
  readonly endStream: boolean
  readonly header: DecodedHeader
}

/** Text of a block may be longer than what is in it, as a poor encoder writes it: by no more than this. */
const BLOCK_GROWTH = 4
const FRAMES_MAX = 32
const PRIORITY_BYTES = 5

/** Puts header blocks together out of HEADERS and CONTINUATION frames, and decodes them. */
export class HeaderCollector {
  readonly #decoder: HeaderDecoder
  readonly #blockBytesMax: number
  readonly #budget: BodyBudget
  /** Of a block that goes on in the next frame. */
  #parts: Buffer[] = []
  #bytes = 0
  #id = 0
  #endStream = false

  /** @param budget - for blocks that are not complete */
  constructor(headerBytesMax: number, budget: BodyBudget) {
    this.#budget = budget
    this.#decoder = new HeaderDecoder(headerBytesMax)
    this.#blockBytesMax = headerBytesMax * BLOCK_GROWTH
  }

  /** The next frame must be a CONTINUATION. */
  get collecting(): boolean {
    return this.#parts.length > 0
  }

  /** HEADERS. @returns the header if it is complete @throws ConnectionError */
  begin(
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
  ): CollectedHeader | undefined {
    const [from, to] = unpad(flags, buffer, start, end)
    const blockStart = (flags & FLAG.priority) === 0 ? from : from + PRIORITY_BYTES
    if (blockStart > to) throw new ConnectionError(CODE.frameSizeError, 'HEADERS cut short')
    const endStream = (flags & FLAG.endStream) !== 0
    if ((flags & FLAG.endHeaders) !== 0) {
      return { id, endStream, header: this.#decoder.decode(buffer, blockStart, to) }
    }
    this.#id = id
    this.#endStream = endStream
    this.#keep(buffer, blockStart, to)
    return undefined
  }

  /** CONTINUATION. @returns the header if it is complete @throws ConnectionError */
  goOn(
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
  ): CollectedHeader | undefined {
    if (!this.collecting || id !== this.#id) {
      throw new ConnectionError(CODE.protocolError, 'CONTINUATION of nothing')
    }
    this.#keep(buffer, start, end)
    if ((flags & FLAG.endHeaders) === 0) return undefined
    const block = Buffer.concat(this.#parts)
    this.close()
    const header = this.#decoder.decode(block, 0, block.length)
    return { id, endStream: this.#endStream, header }
  }

  /** Gives back what is held. Idempotent. */
  close(): void {
    this.#budget.give(this.#bytes)
    this.#parts = []
    this.#bytes = 0
  }

  #keep(buffer: Buffer, start: number, end: number): void {
    const bytes = end - start
    const fits = this.#bytes + bytes <= this.#blockBytesMax && this.#parts.length < FRAMES_MAX
    // Peers are many, and the rest may never come.
    if (fits && this.#budget.bytes <= this.#budget.bytesMax) {
      // A part would hold on to all that was read with it.
      this.#parts.push(Buffer.from(buffer.subarray(start, end)))
      this.#budget.force(bytes)
      this.#bytes += bytes
      return
    }
    // What has not been decoded would make all later headers wrong, so there is no way on.
    throw new ConnectionError(CODE.enhanceYourCalm, 'a header block without an end')
  }
}

/** Where the payload of DATA or HEADERS begins and ends without its padding. @throws ConnectionError `PROTOCOL_ERROR` */
export function unpad(
  flags: number,
  buffer: Buffer,
  start: number,
  end: number,
): readonly [start: number, end: number] {
  if ((flags & FLAG.padded) === 0) return [start, end]
  const bytes = buffer[start] ?? 0
  if (start + 1 + bytes > end) throw new ConnectionError(CODE.protocolError, 'too much padding')
  return [start + 1, end - bytes]
}
