import { type BodyBudget, room } from '#agent/sockets/index.ts'

/** What a streamed call holds at most, both ways: what may be sent ahead, and what the sockets have not taken. */
export const STREAM_BYTES = 2 * room.windowBytes + 256 * 1024
/** What a streamed answer holds whose caller takes what comes: most of them are silent most of the time. */
const TAKEN_STREAM_BYTES = 16 * 1024
/** For a body's turn to be received; then the caller is told to try again. */
const TURN_MS = 10_000

/** What one call has of the memory for bodies. */
export class CallMemory {
  readonly #budget: BodyBudget
  #bytes = 0
  /** Of them, for the request's body. */
  #bodyBytes = 0
  /** Gives up waiting. */
  #stopWaiting: (() => void) | undefined

  constructor(budget: BodyBudget) {
    this.#budget = budget
  }

  /** It has none yet, and will be given it in its turn. */
  get waits(): boolean {
    return this.#stopWaiting !== undefined
  }

  /** For the request's body: false, and it has none, when there is not so much left. */
  take(bytes: number): boolean {
    if (!this.#budget.take(bytes)) return false
    this.#bytes = this.#bodyBytes = bytes
    return true
  }

  /** As `take`, as soon as there is so much: `taken` or `late` is called, unless all is given back before. */
  wait(bytes: number, taken: () => void, late: () => void): void {
    const timer = setTimeout(late, TURN_MS)
    const forget = this.#budget.wait(bytes, (bodyBytes) => {
      this.#bytes = this.#bodyBytes = bodyBytes
      this.#stopWaiting?.()
      taken()
    })
    this.#stopWaiting = () => {
      this.#stopWaiting = undefined
      clearTimeout(timer)
      forget()
    }
  }

  /**
   * The answer is a stream, which is there already: takes what it holds, or gives back what it no longer does.
   *
   * @param reads - the request's body has not been read to its end
   * @param behind - the caller takes less than comes
   */
  stream(reads: boolean, behind: boolean): void {
    const bytes = behind ? STREAM_BYTES : Math.max(TAKEN_STREAM_BYTES, reads ? this.#bodyBytes : 0)
    const more = bytes - this.#bytes
    this.#bytes = bytes
    if (more > 0) this.#budget.force(more)
    else if (more < 0) this.#budget.give(-more)
  }

  /** All of it; waits for none. */
  giveBack(): void {
    this.#stopWaiting?.()
    if (this.#bytes === 0) return
    this.#budget.give(this.#bytes)
    this.#bytes = 0
  }
}
