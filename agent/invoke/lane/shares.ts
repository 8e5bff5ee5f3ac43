/** A lane with calls that wait for a place on the node. */
export interface Sharer {
  /** Sends one call. @returns whether another one waits for a turn */
  takeTurn(): boolean
}

/**
 * The node's places for calls in work, shared between its functions. While there are free ones this is two comparisons per
 * call. When all are taken, functions take turns, one call each, for every place that becomes free; and each may always
 * have its part of half of them, so that functions that hang on theirs cannot shut the others out. In work are then at most
 * one and a half times as many as `places`.
 */
export class Shares {
  readonly #places: number
  /** In the order of their turns. */
  readonly #waiting = new Set<Sharer>()
  #inWork = 0
  #guaranteed: number
  #turning = false

  constructor(places: number) {
    this.#places = places
    this.#guaranteed = places
  }

  /** @param lanes - functions of the node */
  divide(lanes: number): void {
    this.#guaranteed = Math.max(1, Math.floor(this.#places / 2 / Math.max(1, lanes)))
  }

  /** @param inWork - calls that the function has in work */
  admits(inWork: number): boolean {
    return this.#inWork < this.#places || inWork < this.#guaranteed
  }

  /** Calls in work. */
  get inWork(): number {
    return this.#inWork
  }

  take(): void {
    this.#inWork += 1
  }

  /** A call is over. */
  give(): void {
    this.#inWork -= 1
    if (this.#waiting.size > 0 && !this.#turning) this.#turn()
  }

  /** The function gets a turn when a place becomes free. */
  wait(sharer: Sharer): void {
    this.#waiting.add(sharer)
  }

  /** A turn may end a call at once, and so give its place back: then this goes on, and does not begin again. */
  #turn(): void {
    this.#turning = true
    for (const sharer of this.#waiting) {
      if (this.#inWork >= this.#places) break
      this.#waiting.delete(sharer)
      if (sharer.takeTurn()) this.#waiting.add(sharer)
    }
    this.#turning = false
  }
}
