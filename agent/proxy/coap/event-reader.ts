import { Fault } from '#shared/fault.ts'

const LF = 10
const CR = 13
const COLON = 58
const SPACE = 32
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])
const LINE_FEED = Buffer.from('\n')
const DATA = Buffer.from('data')
const NOTHING: Buffer = Buffer.alloc(0)
const PARTS_MAX = 64

/** The data of server-sent events, out of a stream's chunks (HTML Living Standard, section 9.2.6). Their names, ids and comments are left out. */
export class EventReader {
  readonly #eventBytesMax: number
  /** Of a line that has not ended. */
  #rest = NOTHING
  /** `data` lines of the event that has not ended, with the line feeds between them. */
  #data: Buffer[] = []
  #dataBytes = 0
  #afterCr = false
  #begun = false

  /** @param eventBytesMax - Bytes of one event that are remembered until it has ended. */
  constructor(eventBytesMax: number) {
    this.#eventBytesMax = eventBytesMax
  }

  /**
   * Takes the next chunk. An event that has not ended when the stream ends is none.
   *
   * @yields each event's data as its last line ends
   * @throws Fault `FUNCTION_OUTPUT_TOO_LARGE`
   */
  *push(chunk: Buffer): Generator<Buffer> {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    let scanned = this.#rest.length
    if (!this.#begun) {
      if (bytes.length < 3 && BYTE_ORDER_MARK.subarray(0, bytes.length).equals(bytes)) {
        this.#rest = bytes
        return
      }
      this.#begun = true
      if (bytes.subarray(0, 3).equals(BYTE_ORDER_MARK)) bytes = bytes.subarray(3)
      scanned = 0
    }
    let from = 0
    for (let at = scanned; at < bytes.length; at++) {
      const byte = bytes[at]
      const second = this.#afterCr && byte === LF
      this.#afterCr = byte === CR
      if (second) from = at + 1
      else if (byte === CR || byte === LF) {
        const event = this.#line(bytes.subarray(from, at))
        from = at + 1
        if (event !== undefined) yield event
      }
    }
    this.#rest = from === bytes.length ? NOTHING : bytes.subarray(from)
    this.#check(this.#rest.length)
  }

  /** @returns an event's data, when the line ends one that has any */
  #line(line: Buffer): Buffer | undefined {
    if (line.length === 0) {
      if (this.#data.length === 0) return undefined
      const event = this.#data.length === 1 ? this.#data[0] : Buffer.concat(this.#data)
      this.#data = []
      this.#dataBytes = 0
      return event
    }
    const colon = line.indexOf(COLON)
    const name = colon === -1 ? line : line.subarray(0, colon)
    if (!name.equals(DATA)) return undefined
    const skip = colon === -1 ? line.length : colon + (line[colon + 1] === SPACE ? 2 : 1)
    // A copy: the chunk that it is a view of may be much larger, and an event may be long in coming to its end.
    const value = Buffer.from(line.subarray(skip))
    this.#check(value.length + 1)
    if (this.#data.length > 0) this.#data.push(LINE_FEED)
    this.#data.push(value)
    this.#dataBytes += value.length + 1
    // So that an event of many short lines takes as little as it has bytes.
    if (this.#data.length > PARTS_MAX) this.#data = [Buffer.concat(this.#data)]
    return undefined
  }

  #check(more: number): void {
    if (this.#dataBytes + more <= this.#eventBytesMax + 1) return
    const bytesMax = this.#eventBytesMax
    throw new Fault(
      'FUNCTION_OUTPUT_TOO_LARGE',
      `an event for a CoAP observer is larger than ${bytesMax} bytes`,
      { bytesMax },
    )
  }
}
