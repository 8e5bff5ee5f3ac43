const STEP = 1.06
const LEAST = 0.001

/** About the median of the last values, in a number: each moves it by a step, so that a few that are far off do not change it much. */
export class Usual {
  #value: number | undefined

  /** Undefined before the first value. */
  get value(): number | undefined {
    return this.#value
  }

  note(value: number): void {
    const usual = this.#value ?? value
    this.#value = Math.max(LEAST, value > usual ? usual * STEP : usual / STEP)
  }
}
