import { isUtf8 } from 'node:buffer'

/**
 * Reads the fields of one message of the protobuf wire format as far as well-formed clients write it. Whatever is unusual makes it
 * `odd`, and then the generated code decides: what unknown, repeated or broken fields mean is written down only there.
 */
export class FieldReader {
  readonly #bytes: Buffer
  readonly #end: number
  #at: number
  /** What has been read since the last look may be nonsense. */
  odd = false

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
  }

  /** The next field's tag (number and wire type) when it fits a byte; 0 at the end, or when the message is odd. */
  tag(): number {
    if (this.odd || this.#at >= this.#end) return 0
    const tag = this.#bytes[this.#at++] ?? 0
    // 0 is no field's, and above 127 another byte follows.
    if (tag === 0 || tag > 0x7f) this.odd = true
    return this.odd ? 0 : tag
  }

  /** At most 28 bits. */
  varint(): number {
    let value = 0
    for (let shift = 0; shift < 28 && this.#at < this.#end; shift += 7) {
      const byte = this.#bytes[this.#at++] ?? 0
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    this.odd = true
    return 0
  }

  /** A view, not a copy. */
  bytes(): Buffer {
    const start = this.#skip()
    return this.#bytes.subarray(start, this.#at)
  }

  /** As `bytes`, of a string. */
  utf8(): Buffer {
    const bytes = this.bytes()
    if (!isUtf8(bytes)) this.odd = true
    return bytes
  }

  text(): string {
    const start = this.#skip()
    const length = this.#at - start
    if (length === 0) return ''
    if (length <= SHORT_BYTES && isAscii(this.#bytes, start, this.#at)) {
      return this.#bytes.latin1Slice(start, this.#at)
    }
    if (!isUtf8(this.#bytes.subarray(start, this.#at))) this.odd = true
    return this.#bytes.utf8Slice(start, this.#at)
  }

  /** A field that is a message itself. */
  message(): FieldReader {
    const start = this.#skip()
    return new FieldReader(this.#bytes, start, this.#at)
  }

  /** Goes behind a field that has a length; returns where its bytes start. */
  #skip(): number {
    const length = this.varint()
    const start = this.#at
    if (this.odd || length > this.#end - start) {
      this.odd = true
      return start
    }
    this.#at = start + length
    return start
  }
}

const SHORT_BYTES = 64

function isAscii(bytes: Buffer, start: number, end: number): boolean {
  let or = 0
  for (let at = start; at < end; at += 1) or |= bytes[at] ?? 0
  return or < 0x80
}

/** Bytes that `writeVarint` takes. @param value - below 2^31 */
export function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) bytes += 1
  return bytes
}

/** @returns where the next byte goes */
export function writeVarint(buffer: Buffer, at: number, value: number): number {
  let rest = value
  let end = at
  for (; rest > 0x7f; rest >>>= 7) buffer[end++] = (rest & 0x7f) | 0x80
  buffer[end++] = rest
  return end
}
