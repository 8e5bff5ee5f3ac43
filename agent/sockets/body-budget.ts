import { room } from './room.ts'

/** Waits for its bytes, in turn. */
interface Waiter {
  readonly bytes: number
  readonly taken: (bytes: number) => void
  waits: boolean
  before: Waiter | undefined
  behind: Waiter | undefined
}

/**
 * Bytes that all calls together may hold. Who gets none waits (and does not read from its caller meanwhile: TCP tells the caller
 * to wait as well), or refuses.
 */
export class BodyBudget {
  /** All that there are. */
  readonly bytesMax: number
  // Not a `Set`: an old table of one refers to all that came later, and with them to the bodies of calls that have ended.
  #first: Waiter | undefined
  #last: Waiter | undefined
  #bytes = 0
  #pumping = false

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax
  }

  /** Bytes held now. */
  get bytes(): number {
    return this.#bytes
  }

  /** Somebody waits. */
  get short(): boolean {
    return this.#first !== undefined
  }

  /** False, and nothing is taken, when there are not so many left, or others have waited longer. */
  take(bytes: number): boolean {
    if (this.#first !== undefined || this.#bytes + bytes > this.bytesMax) return false
    this.#bytes += bytes
    return true
  }

  /** For what is there already: takes more than there are, if need be. */
  force(bytes: number): void {
    this.#bytes += bytes
  }

  give(bytes: number): void {
    this.#bytes -= bytes
    if (this.#first !== undefined) this.#wake()
  }

  /**
   * Calls `taken` when the bytes have been taken, in the order of those that ask. More than there are altogether are all there are.
   *
   * @returns gives up waiting
   */
  wait(bytes: number, taken: (bytes: number) => void): () => void {
    const before = this.#last
    const waiter: Waiter = {
      bytes: Math.min(bytes, this.bytesMax),
      taken,
      waits: true,
      before,
      behind: undefined,
    }
    if (before === undefined) this.#first = waiter
    else before.behind = waiter
    this.#last = waiter
    return () => {
      if (!waiter.waits) return
      this.#remove(waiter)
      if (this.#first !== undefined) this.#wake()
    }
  }

  /** Not at once: whoever gives may be in the midst of its work. */
  #wake(): void {
    if (this.#pumping) return
    this.#pumping = true
    process.nextTick(() => this.#pump())
  }

  #pump(): void {
    this.#pumping = false
    for (let waiter = this.#first; waiter !== undefined; waiter = this.#first) {
      if (this.#bytes + waiter.bytes > this.bytesMax) return
      this.#remove(waiter)
      this.#bytes += waiter.bytes
      waiter.taken(waiter.bytes)
    }
  }

  #remove(waiter: Waiter): void {
    const { before, behind } = waiter
    if (before === undefined) this.#first = behind
    else before.behind = behind
    if (behind === undefined) this.#last = before
    else behind.before = before
    waiter.before = undefined
    waiter.behind = undefined
    waiter.waits = false
  }
}

/** Of the whole process. */
export const bodyBudget = new BodyBudget(room.bodyBytes)
