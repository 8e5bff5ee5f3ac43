import type { ProxyLog } from '../log.ts'

const PAUSE_MS = 1_000

/** Says that answers were cut off, one by one while they are few: a function can have that happen to thousands. */
export class CutOffLog {
  readonly #log: ProxyLog
  #pause: NodeJS.Timeout | undefined
  #untold = 0

  constructor(log: ProxyLog) {
    this.#log = log
  }

  note(fields: object): void {
    if (this.#pause !== undefined) {
      this.#untold += 1
      return
    }
    this.#log.warn(fields, 'an answer was cut off')
    this.#pause = setTimeout(() => this.#tell(), PAUSE_MS)
    this.#pause.unref()
  }

  #tell(): void {
    this.#pause = undefined
    if (this.#untold > 0) this.#log.warn({ answers: this.#untold }, 'more answers were cut off')
    this.#untold = 0
  }
}
