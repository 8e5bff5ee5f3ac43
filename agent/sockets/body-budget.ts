import { type Linked, LinkedList } from '#shared/linked-list.ts'
import { room } from './room.ts'

/** Waits for its bytes, in turn. */
interface Waiter extends Linked<Waiter> {
  readonly bytes: number
  readonly taken: (bytes: number) => void
  waits: boolean
}

/**
 * Bytes that all calls together may hold. Who gets none waits (and does not read from its caller meanwhile: TCP tells the caller
 * to wait as well), or refuses.
 */
export class BodyBudget {
  /** All that there are. */
  readonly bytesMax: number
  // Not a `Set`: an old table of one refers to all that came later, and with them to the bodies of calls that have ended.
  readonly #waiters = new LinkedList<Waiter>()
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
    return this.#waiters.length > 0
  }

  /** False, and nothing is taken, when there are not so many left, or others have waited longer. */
  take(bytes: number): boolean {
    if (this.#waiters.length > 0 || this.#bytes + bytes > this.bytesMax) return false
    this.#bytes += bytes
    return true
  }

  /** For what is there already, ahead of those that wait: false, and nothing is taken, when there are not so many left. */
  takeAhead(bytes: number): boolean {
    if (this.#bytes + bytes > this.bytesMax) return false
    this.#bytes += bytes
    return true
  }

  /** For what is there already: takes more than there are, if need be. */
  force(bytes: number): void {
    this.#bytes += bytes
  }

  give(bytes: number): void {
    this.#bytes -= bytes
    if (this.#waiters.length > 0) this.#wake()
  }

  /**
   * Calls `taken` when the bytes have been taken, in the order of those that ask. More than there are altogether are all there are.
   *
   * @returns gives up waiting
   */
  wait(bytes: number, taken: (bytes: number) => void): () => void {
    const links = { before: undefined, behind: undefined }
    const waiter: Waiter = { bytes: Math.min(bytes, this.bytesMax), taken, waits: true, ...links }
    this.#waiters.push(waiter)
    return () => {
      if (!waiter.waits) return
      this.#remove(waiter)
      if (this.#waiters.length > 0) this.#wake()
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
    for (;;) {
      const { first: waiter } = this.#waiters
      if (waiter === undefined) return
      if (this.#bytes + waiter.bytes > this.bytesMax) return
      this.#remove(waiter)
      this.#bytes += waiter.bytes
      waiter.taken(waiter.bytes)
    }
  }

  #remove(waiter: Waiter): void {
    waiter.waits = false
    this.#waiters.remove(waiter)
  }
}

/** Of the whole process. */
export const bodyBudget = new BodyBudget(room.bodyBytes)
