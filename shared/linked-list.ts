/** What a list holds has its links: so a list allocates nothing, and what has left it refers to nothing that is in it. */
export interface Linked<T> {
  before: T | undefined
  behind: T | undefined
}

/** First in, first out, with removal from the middle in constant time. */
export class LinkedList<T extends Linked<T>> {
  #first: T | undefined
  #last: T | undefined
  #length = 0

  get length(): number {
    return this.#length
  }

  get first(): T | undefined {
    return this.#first
  }

  push(one: T): void {
    one.before = this.#last
    one.behind = undefined
    if (this.#last === undefined) this.#first = one
    else this.#last.behind = one
    this.#last = one
    this.#length += 1
  }

  shift(): T | undefined {
    const first = this.#first
    if (first !== undefined) this.remove(first)
    return first
  }

  *[Symbol.iterator](): Generator<T> {
    for (let one = this.#first; one !== undefined; one = one.behind) yield one
  }

  /** It must be in this list. */
  remove(one: T): void {
    const { before, behind } = one
    if (before === undefined) this.#first = behind
    else before.behind = behind
    if (behind === undefined) this.#last = before
    else behind.before = before
    one.before = undefined
    one.behind = undefined
    this.#length -= 1
  }
}
