import { CODE, ConnectionError } from './format.ts'
import { ENTRY_BYTES, HeaderTable, type TableEntry } from './header-tables.ts'
import { decodeHuffman } from './huffman.ts'

/** What a header block holds. */
export interface DecodedHeader {
  /** Name, value, name, value, ...; without what is above the limit. */
  readonly fields: string[]
  /** False when a field is malformed: the request must not be taken. */
  valid: boolean
  /** Which of the `PSEUDO` fields are there. */
  pseudo: number
  /** -1: not given. */
  contentLength: number
  /** Names, values and 32 bytes for each field, as SETTINGS_MAX_HEADER_LIST_SIZE counts. */
  bytes: number
}

/** SETTINGS_HEADER_TABLE_SIZE when nobody says otherwise, and we do not. */
const TABLE_BYTES_MAX = 4096

/** Decodes the header blocks of one connection, all of them and in order (HPACK, RFC 7541). */
export class HeaderDecoder {
  readonly #bytesMax: number
  readonly #table = new HeaderTable(TABLE_BYTES_MAX)
  #block: Buffer = NO_BYTES
  #at = 0
  #end = 0

  /** @param bytesMax - fields beyond are counted and dropped */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** @throws ConnectionError `COMPRESSION_ERROR` */
  decode(block: Buffer, start: number, end: number): DecodedHeader {
    this.#block = block
    this.#at = start
    this.#end = end
    const header: DecodedHeader = {
      fields: [],
      valid: true,
      pseudo: 0,
      contentLength: -1,
      bytes: 0,
    }
    while (this.#at < end) {
      const byte = block[this.#at] ?? 0
      if (byte >= 0x80) this.#put(header, this.#entry(this.#integer(0x7f)))
      else if (byte >= 0x40) this.#put(header, this.#literal(0x3f, true))
      else if (byte < 0x20) this.#put(header, this.#literal(0x0f, false))
      else this.#resize(header)
    }
    this.#block = NO_BYTES
    return header
  }

  #put(header: DecodedHeader, { name, value, valid }: TableEntry): void {
    header.bytes += name.length + value.length + ENTRY_BYTES
    if (header.bytes > this.#bytesMax) return
    if (!valid) header.valid = false
    else if (name.codePointAt(0) === COLON) putPseudo(header, name)
    else if (name === 'content-length') header.contentLength = Number(value)
    header.fields.push(name, value)
  }

  #literal(mask: number, kept: boolean): TableEntry {
    const index = this.#integer(mask)
    const known = index === 0 ? undefined : this.#entry(index)
    const name = known?.name ?? this.#string()
    const value = this.#string()
    const named = known?.valid ?? isName(name)
    const entry = { name, value, valid: named && isValue(name, value) }
    if (kept) this.#table.add(entry)
    return entry
  }

  #resize(header: DecodedHeader): void {
    const bytes = this.#integer(0x1f)
    if (bytes > TABLE_BYTES_MAX) throw broken(`a table of ${bytes} bytes`)
    if (header.bytes > 0) throw broken('a new size of the table behind a field')
    this.#table.resize(bytes)
  }

  #entry(index: number): TableEntry {
    const entry = this.#table.entry(index)
    if (entry === undefined) throw broken(`field ${index} is not in the table`)
    return entry
  }

  /** Section 5.1; at most 28 bits behind the prefix. */
  #integer(mask: number): number {
    let value = (this.#block[this.#at++] ?? 0) & mask
    if (value < mask) return value
    for (let shift = 0; shift < 28 && this.#at < this.#end; shift += 7) {
      const byte = this.#block[this.#at++] ?? 0
      value += (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw broken('an integer without an end')
  }

  /** Section 5.2. */
  #string(): string {
    if (this.#at >= this.#end) throw broken('a field without an end')
    const coded = ((this.#block[this.#at] ?? 0) & 0x80) !== 0
    const length = this.#integer(0x7f)
    const start = this.#at
    const end = start + length
    if (end > this.#end) throw broken('a string beyond the end')
    this.#at = end
    if (!coded) return this.#block.latin1Slice(start, end)
    const text = decodeHuffman(this.#block, start, end)
    if (text === undefined) throw broken('a string that is not Huffman-coded')
    return text
  }
}

/** RFC 9113, section 8.2.1. */
// eslint-disable-next-line no-control-regex -- Control characters are what it is about.
const FORBIDDEN = /[\0\r\n]/
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/
/** Bits of `DecodedHeader.pseudo`. */
const PSEUDO = { ':method': 1, ':scheme': 2, ':path': 4, ':authority': 8 } as const
/** What a request must have: section 8.3.1. */
export const PSEUDO_NEEDED = PSEUDO[':method'] | PSEUDO[':scheme'] | PSEUDO[':path']
const COLON = 0x3a
/** Section 8.2.2. */
const CONNECTION_FIELDS = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

/** Pseudo fields come once, before all others. */
function putPseudo(header: DecodedHeader, name: string): void {
  const bit = isPseudo(name) ? PSEUDO[name] : 0
  const before = header.fields.length > 0 && header.fields.at(-2)?.startsWith(':') !== true
  if (bit === 0 || before || (header.pseudo & bit) !== 0) header.valid = false
  header.pseudo |= bit
}

function isPseudo(name: string): name is keyof typeof PSEUDO {
  return Object.hasOwn(PSEUDO, name)
}

function isName(name: string): boolean {
  if (name.startsWith(':')) return isPseudo(name)
  return NAME.test(name) && !CONNECTION_FIELDS.has(name)
}

function isValue(name: string, value: string): boolean {
  if (name === ':path') return value.startsWith('/') && !FORBIDDEN.test(value)
  if (name === 'te') return value === 'trailers'
  if (name === 'content-length') return /^[0-9]{1,15}$/.test(value)
  return !FORBIDDEN.test(value)
}

function broken(what: string): ConnectionError {
  return new ConnectionError(CODE.compressionError, `header block with ${what}`)
}

const NO_BYTES = Buffer.alloc(0)
