import { setTimeout as sleep } from 'node:timers/promises'
import type { Engine, HandlerExit } from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { ReconcileLog } from './apply.ts'

const RETRY_FIRST_MS = 100
const RETRY_LAST_MS = 2_000
/** What the engine was doing for an agent that was killed may show up late. */
const SECOND_LOOK_MS = 2_000

export interface EngineWatchOptions {
  readonly engine: Engine
  readonly log: ReconcileLog
  readonly surveyMs: number
  /** Compares what the engine has with what is known. @throws when the engine does not answer */
  readonly survey: (signal: AbortSignal) => Promise<void>
  readonly onExit: (exit: HandlerExit) => void
  readonly onLost: () => void
  readonly onBack: () => void
}

/**
 * Knows whether the engine answers, and looks at it from time to time, because events can be lost.
 *
 * ```
 * unknown --survey ok--> present --survey or call fails, stream ends--> lost (tries again after 100 ms, doubling to 2 s)
 *    +------fails------------------------------------------------------^
 * ```
 */
export class EngineWatch {
  readonly #options: EngineWatchOptions
  readonly #over = new AbortController()
  readonly #exits: Disposable
  readonly #loop: Promise<void>
  #state: 'unknown' | 'present' | 'lost' = 'unknown'
  #fault: Fault | undefined
  #hurry = new AbortController()

  constructor(options: EngineWatchOptions) {
    this.#options = options
    this.#exits = options.engine.watch(options.onExit, (error) => this.lost(error))
    this.#loop = this.#run()
  }

  /** `present` only once it is known what an earlier agent has left behind. */
  get state(): 'present' | 'lost' {
    return this.#state === 'present' ? 'present' : 'lost'
  }

  /** Why it is lost. */
  get fault(): Fault | undefined {
    return this.#fault
  }

  /** Somebody found that it does not answer. */
  lost(error: unknown): void {
    if (this.#state === 'lost') return
    this.#state = 'lost'
    this.#fault = Fault.from(error)
    this.#options.log.warn({ [LOG_KEYS.err]: this.#fault }, 'engine lost')
    this.#options.onLost()
    this.#hurry.abort()
  }

  async close(): Promise<void> {
    this.#over.abort()
    this.#exits[Symbol.dispose]()
    await this.#loop
  }

  async #run(): Promise<void> {
    const { signal } = this.#over
    const { log, onBack, survey, surveyMs } = this.#options
    let retryMs = RETRY_FIRST_MS
    let pauseMs = SECOND_LOOK_MS
    while (!signal.aborted) {
      this.#hurry = new AbortController()
      try {
        await survey(signal)
        retryMs = RETRY_FIRST_MS
        if (this.#state !== 'present') {
          log.info({}, 'engine answers')
          pauseMs = SECOND_LOOK_MS
        }
        this.#state = 'present'
        this.#fault = undefined
        onBack()
      } catch (error) {
        if (signal.aborted) return
        this.lost(error)
      }
      const waitMs = this.#state === 'lost' ? retryMs : pauseMs
      if (this.#state === 'lost') retryMs = Math.min(retryMs * 2, RETRY_LAST_MS)
      else pauseMs = surveyMs
      const either = AbortSignal.any([signal, this.#hurry.signal])
      await sleep(waitMs, undefined, { signal: either }).catch(() => undefined)
    }
  }
}
