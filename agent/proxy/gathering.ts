import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BodyBudget } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'

/** So much of each answer is held without asking: small ones never wait. */
const FREE_BYTES = 16 * 1024
/** What callers are told. */
export const NO_ROOM =
  'the function has answered, but this node holds as many bytes of answers as it may'
const LOOK_EVERY_MS = 20
/** One answer waits so long in all. */
const WAIT_MS_MAX = 2_000

/**
 * What has been gathered of an answer that must be whole before it is handed on. It counts in the budget; once that is used up an
 * answer lets its function wait, for a while, and is then given up: what it held makes room for the others.
 */
export class Gathering implements Disposable {
  readonly #body: Readable
  readonly #budget: BodyBudget
  #bytes = 0
  #waitedMs = 0

  constructor(body: Readable, budget: BodyBudget) {
    this.#body = body
    this.#budget = budget
  }

  /**
   * Counts so many bytes more, at once or when there is room.
   *
   * @throws Fault `FUNCTION_OUTPUT_TOO_LARGE` when there is none for too long
   */
  hold(bytes: number): Promise<void> | void {
    if (this.#bytes + bytes <= FREE_BYTES) this.#budget.force(bytes)
    else if (!this.#budget.takeAhead(bytes)) return this.#wait(bytes)
    this.#bytes += bytes
  }

  [Symbol.dispose](): void {
    this.#budget.give(this.#bytes)
  }

  async #wait(bytes: number): Promise<void> {
    while (!this.#budget.takeAhead(bytes)) {
      // Given up by its caller: reading on tells why.
      if (this.#body.destroyed) return
      if (this.#waitedMs >= WAIT_MS_MAX) throw noRoom()
      await sleep(LOOK_EVERY_MS)
      this.#waitedMs += LOOK_EVERY_MS
    }
    this.#bytes += bytes
  }
}

function noRoom(): Fault {
  return new Fault('FUNCTION_OUTPUT_TOO_LARGE', NO_ROOM)
}
