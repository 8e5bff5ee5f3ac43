/** Where a call is in its set; of nobody else's concern. */
export interface Placed {
  place: number
}

/**
 * The calls of a server. Not a `Set`: that makes a new table every so many calls, and an old one that has survived refers to all that
 * came after it, so that each call of a busy server outlived its end until the next look at all memory.
 */
export class CallSet<T extends Placed> {
  readonly #calls: T[] = []

  get size(): number {
    return this.#calls.length
  }

  /** The call must be in no set. */
  add(call: T): void {
    call.place = this.#calls.length
    this.#calls.push(call)
  }

  /** No effect when it is not there. */
  delete(call: T): void {
    const { place } = call
    if (this.#calls[place] !== call) return
    const last = this.#calls.pop()
    if (last === undefined || last === call) return
    this.#calls[place] = last
    last.place = place
  }

  /** All that are there now, whatever is done to them meanwhile. */
  values(): T[] {
    return [...this.#calls]
  }
}
