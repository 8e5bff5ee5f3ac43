/** Something with an id that never changes. */
interface Identified {
  readonly id: number
}

const SLOTS_MIN = 16

/**
 * Things by their id, where these come and go all the time: a hash table with linear probing, at most half full. Not a `Map`, for the
 * reason that `CallSet` is no `Set`.
 */
export class IdTable<T extends Identified> {
  #slots: (T | undefined)[] = emptySlots(SLOTS_MIN)
  #size = 0

  get size(): number {
    return this.#size
  }

  get(id: number): T | undefined {
    return this.#slots[this.#at(id)]
  }

  /** Its id must not be there. */
  add(one: T): void {
    if ((this.#size + 1) * 2 > this.#slots.length) this.#move(this.#slots.length * 2)
    this.#slots[this.#at(one.id)] = one
    this.#size += 1
  }

  /** False when it was not there. */
  delete(id: number): boolean {
    const slots = this.#slots
    const mask = slots.length - 1
    let hole = this.#at(id)
    if (slots[hole] === undefined) return false
    this.#size -= 1
    // What stands behind because its place was taken moves up.
    for (let at = (hole + 1) & mask; ; at = (at + 1) & mask) {
      const one = slots[at]
      if (one === undefined) break
      if (((at - home(one.id, mask)) & mask) < ((at - hole) & mask)) continue
      slots[hole] = one
      hole = at
    }
    slots[hole] = undefined
    if (this.#size === 0 && slots.length > SLOTS_MIN) this.#move(SLOTS_MIN)
    return true
  }

  /** All that are there now, whatever is done to them meanwhile. */
  values(): T[] {
    return this.#size === 0 ? [] : this.#slots.filter((one) => one !== undefined)
  }

  /** Where the id is, or is to be. */
  #at(id: number): number {
    const slots = this.#slots
    const mask = slots.length - 1
    let at = home(id, mask)
    for (let one = slots[at]; one !== undefined && one.id !== id; one = slots[at]) {
      at = (at + 1) & mask
    }
    return at
  }

  #move(slots: number): void {
    const all = this.values()
    this.#slots = emptySlots(slots)
    for (const one of all) this.#slots[this.#at(one.id)] = one
  }
}

/** Streams of clients have odd ids. */
function home(id: number, mask: number): number {
  return (id >>> 1) & mask
}

function emptySlots(length: number): undefined[] {
  return Array.from({ length })
}
