/** A field that requests refer to by its number. */
export interface TableEntry {
  readonly name: string
  readonly value: string
  /** False for what no request may hold (RFC 9113, section 8.2.1). */
  readonly valid: boolean
}

/** RFC 7541, appendix A: `name` or `name=value`, in the order of their numbers, which begin at 1. */
const STATIC_FIELDS = `:authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204
:status=206 :status=304 :status=400 :status=404 :status=500 accept-charset accept-encoding=gzip,~deflate accept-language accept-ranges
accept access-control-allow-origin age allow authorization cache-control content-disposition content-encoding content-language
content-length content-location content-range content-type cookie date etag expect expires from host if-match if-modified-since
if-none-match if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range referer
refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate`

const STATIC_TABLE: readonly TableEntry[] = STATIC_FIELDS.split(/\s/).map((field) => {
  const [name = '', value = ''] = field.split('=')
  return { name, value: value.replace('~', ' '), valid: true }
})

/** What an entry costs beside its text: section 4.1. */
export const ENTRY_BYTES = 32

/** The static table and behind it the dynamic one, newest first. */
export class HeaderTable {
  /** Oldest first. */
  #entries: TableEntry[] = []
  #bytes = 0
  #bytesMax: number

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** `undefined` for a number that means nothing now. */
  entry(index: number): TableEntry | undefined {
    if (index <= STATIC_TABLE.length) return STATIC_TABLE[index - 1]
    return this.#entries[this.#entries.length - (index - STATIC_TABLE.length)]
  }

  /** An entry larger than the table empties it. */
  add(entry: TableEntry): void {
    this.#bytes += bytesOf(entry)
    this.#entries.push(entry)
    this.#evict()
  }

  resize(bytesMax: number): void {
    this.#bytesMax = bytesMax
    this.#evict()
  }

  #evict(): void {
    let count = 0
    for (const entry of this.#entries) {
      if (this.#bytes <= this.#bytesMax) break
      this.#bytes -= bytesOf(entry)
      count += 1
    }
    if (count > 0) this.#entries.splice(0, count)
  }
}

function bytesOf({ name, value }: TableEntry): number {
  return name.length + value.length + ENTRY_BYTES
}
