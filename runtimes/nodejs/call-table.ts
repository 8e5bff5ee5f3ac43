import type { Call } from './call.ts'

/** The agent uses ids again, so that they stay below what is in flight at most; others are possible. */
const LOW_IDS = 4_096

/**
 * The calls in flight, by id.
 *
 * No `Map`: one that is added to and taken from all the time moves to a new table every few calls, each old table refers to the next, and so
 * V8 keeps all tables and the bodies of the calls that stood in them until it looks at its whole memory.
 */
export class CallTable {
  readonly #low: (Call | undefined)[] = []
  readonly #high = new Map<number, Call>()
  #size = 0

  get size(): number {
    return this.#size
  }

  get(id: number): Call | undefined {
    return id < LOW_IDS ? this.#low[id] : this.#high.get(id)
  }

  /** Takes its place under its id, which must be free. */
  add(call: Call): void {
    const { id } = call
    this.#size += 1
    if (id >= LOW_IDS) {
      this.#high.set(id, call)
      return
    }
    // Without holes.
    while (this.#low.length <= id) this.#low.push(undefined)
    this.#low[id] = call
  }

  delete(call: Call): void {
    if (this.get(call.id) !== call) return
    this.#size -= 1
    if (call.id < LOW_IDS) this.#low[call.id] = undefined
    else this.#high.delete(call.id)
  }

  all(): readonly Call[] {
    return [...this.#low.filter((call) => call !== undefined), ...this.#high.values()]
  }
}
