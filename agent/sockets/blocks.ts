import { room } from './room.ts'

/** Sizes that are kept: powers of two with room for a head, up to the largest frame. */
const SIZES = [72, 136, 264, 520, 1088].map((kib) => kib * 1024)
/** Below this the garbage collector is cheap enough. */
const TAKEN_BYTES_MIN = 32 * 1024

/** Of blocks that nobody has at the moment: enough for many calls that begin and end together. */
const KEPT_BYTES_MAX = Math.min(32 * 1024 * 1024, room.bodyBytes)

/**
 * Memory for large bodies, used again: what each of them took anew cost a third of the agent's time in garbage collection, and
 * the kernel's in clearing pages.
 *
 * Who has taken a block may hand it on, and whoever has it last may give it back, or leave it to the garbage collector: never
 * while anybody may still look at it. A block is given back once; buffers from elsewhere may be given, too, and are ignored.
 */
export class Blocks {
  readonly #keptMs: number
  readonly #kept: ArrayBuffer[][] = SIZES.map(() => [])
  /** Blocks in somebody's hands. */
  readonly #lent = new WeakSet<ArrayBufferLike>()
  #keptBytes = 0
  #newBytes = 0
  #wanted = false
  #timer: NodeJS.Timeout | undefined

  /** Told of each so many bytes of new memory; see `Room.garbageBytes`. */
  onGarbage: (() => void) | undefined

  /** @param keptMs - blocks that nobody has wanted for this long are given up, default 5,000 */
  constructor(keptMs = 5_000) {
    this.#keptMs = keptMs
  }

  /** A buffer of that length, with anything in it. */
  take(bytes: number): Buffer {
    const size = bytes < TAKEN_BYTES_MIN ? -1 : SIZES.findIndex((most) => bytes <= most)
    if (size === -1) {
      this.tookNew(bytes)
      return Buffer.allocUnsafe(bytes)
    }
    this.#wanted = true
    const kept = this.#kept[size]?.pop()
    if (kept === undefined) this.tookNew(bytes)
    else this.#keptBytes -= kept.byteLength
    const memory = kept ?? Buffer.allocUnsafeSlow(SIZES[size] ?? bytes).buffer
    this.#lent.add(memory)
    return Buffer.from(memory, 0, bytes)
  }

  /** Any part of a block stands for all of it. */
  give({ buffer }: Buffer): void {
    if (!this.#lent.delete(buffer) || !(buffer instanceof ArrayBuffer)) return
    if (this.#keptBytes + buffer.byteLength > KEPT_BYTES_MAX) return
    this.#kept[SIZES.findIndex((size) => size === buffer.byteLength)]?.push(buffer)
    this.#keptBytes += buffer.byteLength
    this.#timer ??= setInterval(() => this.#giveUp(), this.#keptMs).unref()
  }

  /** Gives up what is kept: nobody has work for it. */
  drop(): void {
    for (const list of this.#kept) list.length = 0
    this.#keptBytes = 0
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  get keptBytes(): number {
    return this.#keptBytes
  }

  /**
   * Somebody has taken new memory for bodies, here or elsewhere. The engine sees that bodies are garbage, but not how near the process is
   * to its limit: it lets 64 MiB and more of them wait.
   */
  tookNew(bytes: number): void {
    this.#newBytes += bytes
    if (this.#newBytes < room.garbageBytes) return
    this.#newBytes = 0
    this.onGarbage?.()
  }

  #giveUp(): void {
    if (this.#wanted) {
      this.#wanted = false
      return
    }
    this.drop()
  }
}

/** Of the whole process. */
export const blocks = new Blocks()
