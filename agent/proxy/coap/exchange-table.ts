/** One address, whatever its ports: what is remembered of it, oldest first. */
interface Source {
  readonly address: string
  readonly hash: number
  /** Rows of the table, done and being worked on. */
  rows: number
  /** Rows that are done: how many, the first and the last of them. */
  done: number
  oldest: number
  newest: number
}

/** Answers are kept one behind the other in blocks; a block is given back as a whole when its last answer is dropped. */
interface Block {
  readonly bytes: Buffer
  used: number
  answers: number
}

export interface ExchangeTableOptions {
  /** Requests that are done and remembered. */
  readonly entriesMax: number
  /** Of these, of one address: whoever floods the node makes it forget his own requests first. */
  readonly entriesPerAddressMax: number
  /** With their answers. */
  readonly bytesMax: number
  /** From when a request is done. */
  readonly lifetimeMs: number
  /** Rising, from any start. */
  readonly nowMs: () => number
}

/** What an entry costs at most beside its answer: its row, and an address of its own. Measured, rounded up. */
const ENTRY_BYTES = 256
const BLOCK_BYTES = 16 * 1024
const SPARE_BLOCKS_MAX = 4
const ROWS_FIRST = 1_024
const NONE = -1
const NO_ANSWER = Buffer.alloc(0)

/**
 * Requests by peer and message id: those being worked on, which are never dropped, and those that are done, with the datagram that
 * answers a duplicate. The latter are bounded by entries, entries per address, bytes, and time; the oldest make room.
 *
 * Made for a hundred thousand requests per second that are each remembered for minutes: rows are numbers in typed arrays, answers
 * bytes in blocks, so that the garbage collector has nothing to walk through and nothing to copy.
 */
export class ExchangeTable<Work> {
  readonly #options: ExchangeTableOptions
  readonly #sources = new Map<string, Source>()
  readonly #blocks: (Block | undefined)[] = []
  readonly #freeBlocks: number[] = []
  /** Blocks to be used again: a new one costs the garbage collector something. */
  readonly #spare: Buffer[] = []
  /** By row. */
  #owners: (Source | undefined)[] = []
  #works: (Work | undefined)[] = []
  /** Port and message id. */
  #ids!: Int32Array
  #expiresMs!: Float64Array
  #blockOf!: Int32Array
  #offsets!: Int32Array
  #lengths!: Int32Array
  /** The next row of the same bucket, or the next free row. */
  #chain!: Int32Array
  /** All that is done, by age. */
  #older!: Int32Array
  #newer!: Int32Array
  /** The next one of the same address that is done. */
  #newerOfSource!: Int32Array
  /** First row by hash; as many as there are rows, a power of two. */
  #buckets!: Int32Array
  #free = NONE
  #oldest = NONE
  #newest = NONE
  #size = 0
  #blockBytes = 0
  #fill = NONE
  #evicted = 0
  #sourcesMade = 0

  constructor(options: ExchangeTableOptions) {
    this.#options = options
    this.#grow(ROWS_FIRST)
  }

  /** Requests that are done and remembered. */
  get size(): number {
    return this.#size
  }

  get bytes(): number {
    return this.#size * ENTRY_BYTES + this.#blockBytes
  }

  /** Those that were dropped before their time, because others needed their room. */
  get evicted(): number {
    return this.#evicted
  }

  /** The row of a request, or -1. A row stays the request's until it is dropped. */
  find(address: string, port: number, messageId: number): number {
    const source = this.#sources.get(address)
    if (source === undefined) return NONE
    const id = idOf(port, messageId)
    let row = this.#buckets[this.#bucketOf(source, id)] ?? NONE
    while (row !== NONE && (this.#ids[row] !== id || this.#owners[row] !== source)) {
      row = this.#chain[row] ?? NONE
    }
    if (row === NONE || this.#works[row] !== undefined) return row
    if ((this.#expiresMs[row] ?? 0) > this.#options.nowMs()) return row
    this.sweep() // All that are older have expired as well.
    return NONE
  }

  /** Remembers a request that is being worked on; only one that `find` does not find. */
  add(address: string, port: number, messageId: number, work: Work): number {
    if (this.#free === NONE) this.#grow(this.#buckets.length * 2)
    const row = this.#free
    this.#free = this.#chain[row] ?? NONE
    const source = this.#source(address)
    source.rows++
    const id = idOf(port, messageId)
    const bucket = this.#bucketOf(source, id)
    this.#owners[row] = source
    this.#works[row] = work
    this.#ids[row] = id
    this.#chain[row] = this.#buckets[bucket] ?? NONE
    this.#buckets[bucket] = row
    return row
  }

  /** What `add` was given, until the request is done. */
  workOf(row: number): Work | undefined {
    return this.#works[row]
  }

  /** What answers a duplicate of a request that is done, a copy; empty when nothing does. */
  answerOf(row: number): Buffer {
    const bytes = this.#lengths[row] ?? 0
    const block = bytes === 0 ? undefined : this.#blocks[this.#blockOf[row] ?? NONE]
    if (block === undefined) return NO_ANSWER
    const at = this.#offsets[row] ?? 0
    // What is sent may have to wait, and the block may be used again before.
    return Buffer.from(block.bytes.subarray(at, at + bytes))
  }

  /** A request is done; its answer (a copy is made) is kept for duplicates while there is room. */
  done(row: number, answer: Buffer): void {
    const source = this.#owners[row]
    if (source === undefined) throw new RangeError(`row ${row} is free`)
    const { entriesMax, entriesPerAddressMax, bytesMax, nowMs, lifetimeMs } = this.#options
    this.#works[row] = undefined
    this.#expiresMs[row] = nowMs() + lifetimeMs
    this.#append(row, source)
    this.#store(row, answer)
    if (source.done > entriesPerAddressMax) this.#evict(source.oldest)
    while (this.#size > entriesMax || (this.bytes > bytesMax && this.#size > 0)) {
      this.#evict(this.#oldest)
    }
  }

  /** Drops what has expired; for a timer, so that an idle node gives its memory back. */
  sweep(): void {
    const nowMs = this.#options.nowMs()
    while (this.#oldest !== NONE && (this.#expiresMs[this.#oldest] ?? 0) <= nowMs) {
      this.#drop(this.#oldest)
    }
    if (this.#sources.size === 0 && this.#buckets.length > ROWS_FIRST) this.#shrink()
  }

  #source(address: string): Source {
    const known = this.#sources.get(address)
    if (known !== undefined) return known
    this.#sourcesMade = (this.#sourcesMade + 1) | 0
    const hash = Math.imul(this.#sourcesMade, 0x9e37_79b1)
    const source = { address, hash, rows: 0, done: 0, oldest: NONE, newest: NONE }
    this.#sources.set(address, source)
    return source
  }

  #bucketOf(source: Source, id: number): number {
    const mixed = Math.imul(source.hash ^ id, 0x85eb_ca6b)
    return (mixed ^ (mixed >>> 15)) & (this.#buckets.length - 1)
  }

  /** Makes a row the newest, of all and of its address. */
  #append(row: number, source: Source): void {
    this.#size++
    this.#older[row] = this.#newest
    this.#newer[row] = NONE
    if (this.#newest === NONE) this.#oldest = row
    else this.#newer[this.#newest] = row
    this.#newest = row
    source.done++
    this.#newerOfSource[row] = NONE
    if (source.newest === NONE) source.oldest = row
    else this.#newerOfSource[source.newest] = row
    source.newest = row
  }

  #store(row: number, answer: Buffer): void {
    const bytes = answer.length
    this.#lengths[row] = bytes
    if (bytes === 0) return
    let block = this.#blocks[this.#fill]
    if (block === undefined || block.used + bytes > block.bytes.length) {
      const spare = bytes <= BLOCK_BYTES ? this.#spare.pop() : undefined
      const fresh = spare ?? Buffer.allocUnsafeSlow(Math.max(BLOCK_BYTES, bytes))
      block = { bytes: fresh, used: 0, answers: 0 }
      this.#fill = this.#freeBlocks.pop() ?? this.#blocks.length
      this.#blocks[this.#fill] = block
      this.#blockBytes += block.bytes.length
    }
    block.bytes.set(answer, block.used)
    this.#blockOf[row] = this.#fill
    this.#offsets[row] = block.used
    block.used += bytes
    block.answers++
  }

  #evict(row: number): void {
    if ((this.#expiresMs[row] ?? 0) > this.#options.nowMs()) this.#evicted++
    this.#drop(row)
  }

  /** Forgets a request that is done: always the oldest of its address. */
  #drop(row: number): void {
    const source = this.#owners[row]
    if (source === undefined) throw new RangeError(`row ${row} is free`)
    const older = this.#older[row] ?? NONE
    const newer = this.#newer[row] ?? NONE
    if (older === NONE) this.#oldest = newer
    else this.#newer[older] = newer
    if (newer === NONE) this.#newest = older
    else this.#older[newer] = older
    this.#size--
    source.done--
    source.oldest = this.#newerOfSource[row] ?? NONE
    if (source.oldest === NONE) source.newest = NONE
    if (--source.rows === 0) this.#sources.delete(source.address)
    this.#giveBack(row)
    this.#unchain(row, source)
    this.#owners[row] = undefined
    this.#chain[row] = this.#free
    this.#free = row
  }

  #giveBack(row: number): void {
    if (this.#lengths[row] === 0) return
    const index = this.#blockOf[row] ?? NONE
    const block = this.#blocks[index]
    if (block === undefined || --block.answers > 0) return
    if (block.bytes.length === BLOCK_BYTES && this.#spare.length < SPARE_BLOCKS_MAX) {
      this.#spare.push(block.bytes)
    }
    this.#blocks[index] = undefined
    this.#blockBytes -= block.bytes.length
    this.#freeBlocks.push(index)
    if (this.#fill === index) this.#fill = NONE
  }

  #unchain(row: number, source: Source): void {
    const bucket = this.#bucketOf(source, this.#ids[row] ?? 0)
    const next = this.#chain[row] ?? NONE
    let at = this.#buckets[bucket] ?? NONE
    if (at === row) {
      this.#buckets[bucket] = next
      return
    }
    while (this.#chain[at] !== row) at = this.#chain[at] ?? NONE
    this.#chain[at] = next
  }

  /** Nothing is remembered: gives back what the busiest time took. */
  #shrink(): void {
    this.#owners = []
    this.#works = []
    this.#spare.length = 0
    this.#blocks.length = 0
    this.#freeBlocks.length = 0
    this.#free = NONE
    this.#grow(ROWS_FIRST)
  }

  /** To a power of two of rows, none of which is free before. */
  #grow(rows: number): void {
    const before = this.#owners.length
    this.#ids = grown(this.#ids, rows)
    this.#blockOf = grown(this.#blockOf, rows)
    this.#offsets = grown(this.#offsets, rows)
    this.#lengths = grown(this.#lengths, rows)
    this.#older = grown(this.#older, rows)
    this.#newer = grown(this.#newer, rows)
    this.#newerOfSource = grown(this.#newerOfSource, rows)
    this.#chain = new Int32Array(rows)
    this.#buckets = new Int32Array(rows).fill(NONE)
    const expiresMs = new Float64Array(rows)
    if (before > 0) expiresMs.set(this.#expiresMs)
    this.#expiresMs = expiresMs
    for (let row = 0; row < before; row++) {
      const source = this.#owners[row]
      if (source === undefined) continue
      const bucket = this.#bucketOf(source, this.#ids[row] ?? 0)
      this.#chain[row] = this.#buckets[bucket] ?? NONE
      this.#buckets[bucket] = row
    }
    for (let row = before; row < rows; row++) {
      this.#owners.push(undefined)
      this.#works.push(undefined)
      this.#chain[row] = this.#free
      this.#free = row
    }
  }
}

function idOf(port: number, messageId: number): number {
  return (port << 16) | messageId
}

/** A copy with more rows; with fewer, nothing of it. */
function grown(array: Int32Array | undefined, rows: number): Int32Array {
  const larger = new Int32Array(rows)
  if (array !== undefined && array.length < rows) larger.set(array)
  return larger
}
