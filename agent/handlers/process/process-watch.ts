import { isAlive, type ProcessIdentity } from './proc.ts'

const POLL_MS = 250
/** Output is looked at every so many polls. */
const POLLS_PER_BOUND = 8

interface ProcessWatchOptions {
  readonly onExit: (id: string) => void
  readonly boundOutput: (id: string) => Promise<void>
}

/** Own children are checked when they end, those of an earlier agent by polling. */
export class ProcessWatch implements Disposable {
  readonly #options: ProcessWatchOptions
  readonly #running = new Map<string, ProcessIdentity>()
  readonly #timer: NodeJS.Timeout
  #polls = 0

  constructor(options: ProcessWatchOptions) {
    this.#options = options
    this.#timer = setInterval(() => this.#poll(), POLL_MS)
    this.#timer.unref()
  }

  add(id: string, identity: ProcessIdentity): void {
    this.#running.set(id, identity)
  }

  delete(id: string): void {
    this.#running.delete(id)
  }

  check(id: string): void {
    const identity = this.#running.get(id)
    if (identity === undefined || isAlive(identity)) return
    this.#running.delete(id)
    this.#options.onExit(id)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#running.clear()
  }

  #poll(): void {
    this.#polls++
    for (const id of this.#running.keys()) {
      this.check(id)
      if (this.#polls % POLLS_PER_BOUND !== 0) continue
      // Output that cannot be cut is cut next time; the folder may be on its way out.
      this.#options.boundOutput(id).catch(() => undefined)
    }
  }
}
