import { Fault } from '#shared/fault.ts'

/** At most so many at once; the others wait in order, and a waiting line that is too long refuses. */
export class Slots {
  readonly #max: number
  readonly #waitingMax: number
  readonly #what: string
  readonly #waiting: (() => void)[] = []
  #taken = 0

  /** @param what - plural, for the message of the refusal */
  constructor(max: number, waitingMax: number, what: string) {
    this.#max = max
    this.#waitingMax = waitingMax
    this.#what = what
  }

  get full(): boolean {
    return this.#taken >= this.#max
  }

  /** @throws Fault `FUNCTION_SATURATED` when too many wait already, or the signal's reason */
  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted()
    if (this.full) await this.#wait(signal)
    else this.#taken += 1
    try {
      return await work()
    } finally {
      // The slot goes from hand to hand, so nobody overtakes.
      const next = this.#waiting.shift()
      if (next === undefined) this.#taken -= 1
      else next()
    }
  }

  #wait(signal: AbortSignal): Promise<void> {
    if (this.#waiting.length >= this.#waitingMax) {
      throw new Fault(
        'FUNCTION_SATURATED',
        `${this.#waitingMax} ${this.#what} are waiting already: try again later`,
      )
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const leave = () => {
      const at = this.#waiting.indexOf(enter)
      if (at !== -1) this.#waiting.splice(at, 1)
      reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'))
    }
    const enter = () => {
      signal.removeEventListener('abort', leave)
      resolve()
    }
    this.#waiting.push(enter)
    signal.addEventListener('abort', leave, { once: true })
    return promise
  }
}
