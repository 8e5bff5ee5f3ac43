/** The newest of many values for one reader: what it was too slow for is left out. */
export class Latest<T> {
  #values: T[] = []
  #wake: (() => void) | undefined

  set(value: T): void {
    this.#values = [value]
    this.#wake?.()
  }

  /** The newest value since the last call, waiting for one when there is none; nothing when the signal aborts. */
  async next(signal: AbortSignal): Promise<T | undefined> {
    const woken = Promise.withResolvers<void>()
    const wake = () => woken.resolve()
    this.#wake = wake
    signal.addEventListener('abort', wake)
    try {
      if (this.#values.length === 0 && !signal.aborted) await woken.promise
      return this.#values.pop()
    } finally {
      this.#wake = undefined
      signal.removeEventListener('abort', wake)
    }
  }
}
