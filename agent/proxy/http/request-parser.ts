import type { Refusal } from './framing.ts'
import { type Llhttp, type LlhttpEvents, PIECE, type PieceKind } from './llhttp.ts'

/** A request's head as it was sent. */
export interface RequestHead {
  /** Upper-case, e.g. `POST`. */
  readonly method: string
  readonly target: string
  /** Names as they were sent, values without the white space around them: name, value, name, value, ... */
  readonly fields: readonly string[]
  /** 10 or 11. */
  readonly version: number
  /** What version and `Connection` say together. */
  readonly keepAlive: boolean
}

/** Takes a chunked body's bytes: `buffer[start, end)`, valid during the call only. */
export type TakeBytes = (buffer: Buffer, start: number, end: number) => void

export interface ParserLimits {
  readonly headerBytesMax: number
  readonly headerFieldsMax: number
}

/** Between two bytes of a chunked body: chunk sizes with their extensions, and in the end the trailer. */
const CHUNK_OVERHEAD_BYTES_MAX = 16 * 1024

/** Reads one request after another: its head, then its body when that is chunked. One with a length is for the caller to count. */
export class RequestParser implements LlhttpEvents {
  /** Set when the head is whole. */
  head: RequestHead | undefined
  /** Set when the request cannot be understood; the parser must then be `reset`. */
  broken: Refusal | undefined
  /** The last chunk and the trailer have been read. */
  complete = false
  readonly #llhttp: Llhttp
  readonly #limits: ParserLimits
  readonly #parser: number
  #target = ''
  #fields: string[] = []
  /** The kind of the last piece of text, to which the next bytes may belong. */
  #last: PieceKind = PIECE.target
  #names = 0
  #headBytes = 0
  /** In the bytes being parsed: pieces of text (what to do with it, start, end), or of the body (start, end). */
  #pieces: number[] = []
  #keepAlive = false
  #headWhole = false
  /** Bytes since the last one of the body. */
  #overheadBytes = 0

  constructor(llhttp: Llhttp, limits: ParserLimits) {
    this.#llhttp = llhttp
    this.#limits = limits
    this.#parser = llhttp.create()
  }

  /** Makes it expect the start of a request. */
  reset(): void {
    this.#llhttp.reset(this.#parser)
    this.head = undefined
    this.broken = undefined
    this.complete = false
    this.#target = ''
    this.#fields = []
    this.#last = PIECE.target
    this.#names = 0
    this.#headBytes = 0
    this.#keepAlive = false
    this.#headWhole = false
    this.#overheadBytes = 0
  }

  /** Reads from `buffer[at, end)` until the head is whole; returns where it stopped. */
  readHead(buffer: Buffer, start: number, end: number): number {
    let at = start
    while (at < end && this.head === undefined && this.broken === undefined) {
      this.#pieces.length = 0
      const execution = this.#llhttp.execute(this.#parser, buffer, at, end, this)
      this.#headBytes += this.#llhttp.taken
      this.#collect(buffer, at)
      at += this.#llhttp.taken
      if (this.#headBytes > this.#limits.headerBytesMax) this.#breakOff(431, 'HPE_HEADER_OVERFLOW')
      else if (execution === 'broken') this.#breakOff(400, this.#llhttp.error)
      else if (this.#headWhole) this.#finishHead()
    }
    return at
  }

  /**
   * Reads from `buffer[at, end)` until the chunked body is `complete`; returns where it stopped. What lay before that place may
   * have been overwritten.
   */
  readChunks(buffer: Buffer, start: number, end: number, take: TakeBytes): number {
    const pieces = this.#pieces
    let at = start
    while (at < end && !this.complete && this.broken === undefined) {
      pieces.length = 0
      const execution = this.#llhttp.execute(this.#parser, buffer, at, end, this)
      const { taken } = this.#llhttp
      this.#countOverhead(taken)
      if (execution === 'broken') this.#breakOff(400, this.#llhttp.error)
      else if (execution === 'paused') this.complete = true
      // Only now: whoever takes it may do anything, also make another parser execute.
      if (pieces.length > 0) {
        const from = at + (pieces[0] ?? 0)
        take(buffer, from, this.#joinPieces(buffer, at))
      }
      at += taken
    }
    return at
  }

  piece(kind: PieceKind, start: number, end: number): boolean {
    if (this.#headWhole) return true // The trailer: nobody asked for it.
    const goesOn = kind === this.#last
    this.#last = kind
    if (kind === PIECE.name && !goesOn && ++this.#names > this.#limits.headerFieldsMax) {
      this.#breakOff(400, `more than ${this.#limits.headerFieldsMax} header fields`)
      return false
    }
    const what = kind === PIECE.target ? TARGET : goesOn ? FIELD_GOES_ON : FIELD
    this.#pieces.push(what, start, end)
    return true
  }

  headComplete(keepAlive: boolean): void {
    this.#keepAlive = keepAlive
    this.#headWhole = true
  }

  body(start: number, end: number): void {
    this.#countOverhead(start)
    this.#overheadBytes = 0
    this.#pieces.push(start, end)
  }

  /**
   * Moves the pieces of the body together, to behind the first of them, over sizes that have been parsed; returns where they end. A
   * piece costs whoever keeps it a hundred bytes, and a sender can make each of one byte.
   */
  #joinPieces(buffer: Buffer, base: number): number {
    const pieces = this.#pieces
    let end = base + (pieces[1] ?? 0)
    for (let index = 2; index < pieces.length; index += 2) {
      const start = base + (pieces[index] ?? 0)
      const stop = base + (pieces[index + 1] ?? 0)
      buffer.copyWithin(end, start, stop)
      end += stop - start
    }
    return end
  }

  /** What lies between the last piece of the body, or the start of the bytes being parsed, and this place is none of it. */
  #countOverhead(to: number): void {
    this.#overheadBytes += to - (this.#pieces.at(-1) ?? 0)
    if (this.#overheadBytes > CHUNK_OVERHEAD_BYTES_MAX) {
      this.#breakOff(400, 'HPE_CHUNK_EXTENSIONS_OVERFLOW')
    }
  }

  /** Turns the pieces into text: all bytes at once, then cut. */
  #collect(buffer: Buffer, base: number): void {
    const pieces = this.#pieces
    const { length } = pieces
    if (length === 0) return
    const from = pieces[1] ?? 0
    const text = buffer.latin1Slice(base + from, base + (pieces[length - 1] ?? 0))
    for (let index = 0; index < length; index += 3) {
      const start = (pieces[index + 1] ?? 0) - from
      this.#add(pieces[index], text.slice(start, (pieces[index + 2] ?? 0) - from))
    }
  }

  #add(what: number | undefined, text: string): void {
    if (what === FIELD) this.#fields.push(text)
    else if (what === TARGET) this.#target += text
    else this.#fields.push((this.#fields.pop() ?? '') + text)
  }

  #finishHead(): void {
    const method = this.#llhttp.method(this.#parser)
    const version = this.#llhttp.version(this.#parser)
    if (method === undefined) return this.#breakOff(400, 'HPE_INVALID_METHOD')
    if (version !== 11 && version !== 10) return this.#breakOff(400, 'HPE_INVALID_VERSION')
    this.head = {
      method,
      version,
      target: this.#target,
      fields: this.#fields,
      keepAlive: this.#keepAlive,
    }
    this.#llhttp.resume(this.#parser)
  }

  #breakOff(status: number, reason: string): void {
    this.broken ??= { status, reason }
  }
}

/** Parsers that can be used again: as many as there were unfinished requests at one moment, not as there are connections. */
export class ParserPool {
  readonly #llhttp: Llhttp
  readonly #limits: ParserLimits
  readonly #free: RequestParser[] = []

  constructor(llhttp: Llhttp, limits: ParserLimits) {
    this.#llhttp = llhttp
    this.#limits = limits
  }

  take(): RequestParser {
    return this.#free.pop() ?? new RequestParser(this.#llhttp, this.#limits)
  }

  give(parser: RequestParser): void {
    parser.reset()
    this.#free.push(parser)
  }
}

/** What to do with a piece of text. */
const TARGET = 0
const FIELD = 1
const FIELD_GOES_ON = 2
