import type { Readable } from 'node:stream'
import type { BodyBudget } from '#agent/sockets/index.ts'
import { type Linked, LinkedList } from '#shared/linked-list.ts'

/** All that gather, the oldest first. */
const line = new LinkedList<Gathering>()

/**
 * What has been gathered of an answer that must be whole before it is handed on. It counts in the budget; once that is used up only
 * the oldest goes on, so that one after the other comes to its end, and the others let their functions wait.
 */
export class Gathering implements Linked<Gathering>, Disposable {
  before: Gathering | undefined
  behind: Gathering | undefined
  readonly #budget: BodyBudget
  #bytes = 0
  #goOn: (() => void) | undefined

  constructor(body: Readable, budget: BodyBudget) {
    this.#budget = budget
    line.push(this)
    // Whoever waits for a body that has been given up finds out by reading on.
    body.once('close', () => this.#goOn?.())
  }

  /** Counts so many bytes more, at once or when there is room. */
  hold(bytes: number): Promise<void> | void {
    this.#bytes += bytes
    if (this.#budget.takeAhead(bytes)) return
    if (line.first === this) return this.#budget.force(bytes)
    return new Promise((resolve) => {
      const leave = this.#budget.wait(bytes, (taken) => {
        this.#goOn = undefined
        this.#budget.force(bytes - taken)
        resolve()
      })
      this.#goOn = () => {
        this.#goOn = undefined
        leave()
        this.#budget.force(bytes)
        resolve()
      }
    })
  }

  [Symbol.dispose](): void {
    line.remove(this)
    this.#budget.give(this.#bytes)
    const { first } = line
    if (first !== undefined) first.#goOn?.()
  }
}
