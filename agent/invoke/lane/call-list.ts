import type { Call } from './call.ts'

/** First in, first out, with removal from the middle in constant time: its links are in the calls, so it allocates nothing. */
export class CallList {
  #first: Call | undefined
  #last: Call | undefined
  #length = 0

  get length(): number {
    return this.#length
  }

  push(call: Call): void {
    call.before = this.#last
    call.behind = undefined
    if (this.#last === undefined) this.#first = call
    else this.#last.behind = call
    this.#last = call
    this.#length += 1
  }

  shift(): Call | undefined {
    const first = this.#first
    if (first !== undefined) this.remove(first)
    return first
  }

  *[Symbol.iterator](): Generator<Call> {
    for (let call = this.#first; call !== undefined; call = call.behind) yield call
  }

  /** The call must be in this list. */
  remove(call: Call): void {
    const { before, behind } = call
    if (before === undefined) this.#first = behind
    else before.behind = behind
    if (behind === undefined) this.#last = before
    else behind.before = before
    call.before = undefined
    call.behind = undefined
    this.#length -= 1
  }
}
