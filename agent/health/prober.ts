import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '#shared/clock.ts'
import type { Heartbeat } from '#shared/schemas/health.ts'
import { cutText } from '#shared/text.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { HealthLog } from './log.ts'

const FIRST_AFTER_MS = 10_000
const PROBE_WITHIN_MS = 60_000
const ERROR_CHARS_MAX = 500

export type ProbeResult = NonNullable<Heartbeat['probe']>

export interface ProberOptions {
  readonly everyMs: number
  /** Default 10,000: the start of an agent has better things to do. */
  readonly firstAfterMs?: number
  readonly probe: (signal: AbortSignal) => Promise<number>
  readonly clock: Clock
  readonly log: HealthLog
}

/** The deep probe at a low rate: can this host really start something? Its result is in every heartbeat. */
export class Prober implements AsyncDisposable {
  readonly #options: ProberOptions
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>
  #result: ProbeResult | undefined

  private constructor(options: ProberOptions) {
    this.#options = options
    this.#running = this.#run(this.#stopping.signal)
  }

  static start(options: ProberOptions): Prober {
    return new Prober(options)
  }

  /** Undefined before the first probe has ended. */
  get result(): ProbeResult | undefined {
    return this.#result
  }

  async close(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { everyMs, firstAfterMs = FIRST_AFTER_MS } = this.#options
    const wait = (ms: number) => sleep(ms, undefined, { signal }).catch(() => {})
    await wait(Math.min(firstAfterMs, everyMs))
    while (!signal.aborted) {
      await this.#probe(signal)
      await wait(everyMs)
    }
  }

  async #probe(signal: AbortSignal): Promise<void> {
    const { probe, clock, log } = this.#options
    const startedMs = performance.now()
    const atMs = clock.nowMs()
    const took = () => Math.round(performance.now() - startedMs)
    try {
      await probe(AbortSignal.any([signal, timeLimit(PROBE_WITHIN_MS)]))
      if (this.#result?.ok === false) log.info({ tookMs: took() }, 'deep probe works again')
      this.#result = { ok: true, atMs, tookMs: took() }
    } catch (error) {
      if (signal.aborted) return
      const text = error instanceof Error ? error.message : String(error)
      log.warn({ err: error }, 'deep probe failed')
      this.#result = { ok: false, atMs, tookMs: took(), error: cutText(text, ERROR_CHARS_MAX) }
    }
  }
}
