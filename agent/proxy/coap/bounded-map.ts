interface Entry<V> {
  readonly value: V
  readonly peer: string
  bytes: number
  expiresMs: number
}

export interface BoundedMapOptions {
  readonly entriesMax: number
  readonly bytesMax: number
  /** Entries of one peer; a peer over it loses its own oldest. */
  readonly entriesPerPeerMax?: number
  /** From the last `set` or `touch`. */
  readonly lifetimeMs: number
  /** Rising, from any start. */
  readonly nowMs: () => number
}

/**
 * A map that stays small whatever comes: bounded by entries, bytes, entries per peer, and time. What does not fit drops the
 * entries that were set or touched longest ago.
 */
export class BoundedMap<V> {
  readonly #options: BoundedMapOptions
  /** Oldest first: an entry that is touched moves to the end. */
  readonly #entries = new Map<string, Entry<V>>()
  readonly #peers = new Map<string, Set<string>>()
  #bytes = 0
  #evicted = 0

  constructor(options: BoundedMapOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#entries.size
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Entries that were dropped before their time, because others needed their room. */
  get evicted(): number {
    return this.#evicted
  }

  get(key: string): V | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.expiresMs > this.#options.nowMs()) return entry.value
    this.delete(key)
    return undefined
  }

  /** @returns false when it is too large to be kept at all. */
  set(key: string, peer: string, value: V, bytes: number): boolean {
    this.delete(key)
    if (bytes > this.#options.bytesMax) return false
    const { nowMs, lifetimeMs } = this.#options
    this.#entries.set(key, { value, peer, bytes, expiresMs: nowMs() + lifetimeMs })
    this.#bytes += bytes
    this.#countPeer(peer, key)
    this.#makeRoom()
    return true
  }

  /** Says that an entry has grown or shrunk; it keeps its place and its time. */
  resize(key: string, bytes: number): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#bytes += bytes - entry.bytes
    entry.bytes = bytes
    this.#makeRoom()
  }

  /** Makes an entry the newest; its time starts again. */
  touch(key: string): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#entries.delete(key)
    entry.expiresMs = this.#options.nowMs() + this.#options.lifetimeMs
    this.#entries.set(key, entry)
  }

  delete(key: string): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#entries.delete(key)
    this.#bytes -= entry.bytes
    if (this.#options.entriesPerPeerMax === undefined) return
    const keys = this.#peers.get(entry.peer)
    keys?.delete(key)
    if (keys?.size === 0) this.#peers.delete(entry.peer)
  }

  /** Drops what has expired; for a timer, so that an idle proxy gives its memory back. */
  sweep(): void {
    const nowMs = this.#options.nowMs()
    for (const [key, entry] of this.#entries) {
      if (entry.expiresMs > nowMs) return
      this.delete(key)
    }
  }

  #countPeer(peer: string, key: string): void {
    const max = this.#options.entriesPerPeerMax
    if (max === undefined) return
    const keys = this.#peers.get(peer)
    if (keys === undefined) {
      this.#peers.set(peer, new Set([key]))
      return
    }
    keys.add(key)
    for (const oldest of keys) {
      if (keys.size <= max) return
      this.#evict(oldest)
    }
  }

  #evict(key: string): void {
    const expiresMs = this.#entries.get(key)?.expiresMs ?? 0
    if (expiresMs > this.#options.nowMs()) this.#evicted++
    this.delete(key)
  }

  #makeRoom(): void {
    const { entriesMax, bytesMax } = this.#options
    if (this.#entries.size <= entriesMax && this.#bytes <= bytesMax) return
    for (const key of this.#entries.keys()) {
      this.#evict(key)
      if (this.#entries.size <= entriesMax && this.#bytes <= bytesMax) return
    }
  }
}
