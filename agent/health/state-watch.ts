import type { FunctionReport } from '#shared/schemas/health.ts'

const LOOK_EVERY_MS = 100
/** After the last change; then the heartbeat's own pace is enough. */
const CALM_AFTER_MS = 60_000

export interface StateWatchOptions {
  readonly functions: () => readonly FunctionReport[]
  /** A function's state, reason or serving releases are others than when last looked. */
  readonly onChange: () => void
}

/** Notices changes of state soon after something was set in motion, and costs nothing while all is calm. */
export class StateWatch implements Disposable {
  readonly #options: StateWatchOptions
  #timer: NodeJS.Timeout | undefined
  #seen = ''
  #changedMs = 0

  constructor(options: StateWatchOptions) {
    this.#options = options
  }

  /** Something may change from now on. */
  stir(): void {
    this.#changedMs = performance.now()
    this.#timer ??= setInterval(() => this.#look(), LOOK_EVERY_MS).unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #look(): void {
    const reports = this.#options.functions()
    const now = JSON.stringify(
      reports.map(({ fn, release, state, reason, serving }) => [
        fn,
        release,
        state,
        reason,
        serving,
      ]),
    )
    if (now !== this.#seen) {
      this.#seen = now
      this.#changedMs = performance.now()
      this.#options.onChange()
    }
    const quietMs = performance.now() - this.#changedMs
    const settled = reports.every(({ state }) => state === 'ready')
    if (quietMs > CALM_AFTER_MS || (settled && quietMs > 10 * LOOK_EVERY_MS)) {
      this[Symbol.dispose]()
    }
  }
}
