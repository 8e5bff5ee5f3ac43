import { Fault } from '#shared/fault.ts'

/** Lets the work on one key run one after the other, and on different keys at the same time. */
export class Turns {
  readonly #waitingMax: number
  readonly #lines = new Map<string, { tail: Promise<unknown>; length: number }>()

  constructor(waitingMax: number) {
    this.#waitingMax = waitingMax
  }

  /**
   * Runs `work` when all earlier work on `key` has ended.
   *
   * @throws Fault `CONFLICT` when too many wait already, `CALLER_GONE` when the signal aborts while waiting
   */
  async take<T>(key: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const line = this.#lines.get(key) ?? { tail: Promise.resolve(), length: 0 }
    if (line.length > this.#waitingMax) {
      throw new Fault('CONFLICT', `${line.length} deployments of ${key} wait already; try later`, {
        fn: key,
      })
    }
    line.length += 1
    this.#lines.set(key, line)
    const run = line.tail.then(() => {
      if (signal.aborted) throw new Fault('CALLER_GONE', 'the caller has gone')
      return work()
    })
    line.tail = run.catch(() => undefined)
    try {
      return await run
    } finally {
      line.length -= 1
      if (line.length === 0) this.#lines.delete(key)
    }
  }
}
