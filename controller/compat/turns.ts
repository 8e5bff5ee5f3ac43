/** One at a time for each name; the others wait in order. Who waits is bounded by the caller. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>()

  /** @throws the signal's reason, when it aborts before the turn has come; what `work` throws */
  async run<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name)
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const mine = (before ?? Promise.resolve()).then(() => ended)
    this.#last.set(name, mine)
    try {
      await before
      signal.throwIfAborted()
      return await work()
    } finally {
      end()
      if (this.#last.get(name) === mine) this.#last.delete(name)
    }
  }
}
