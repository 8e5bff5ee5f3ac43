import { monitorEventLoopDelay } from 'node:perf_hooks'

/** Coarse on purpose: a finer timer would wake an idle agent more often than its work does. */
const RESOLUTION_MS = 50
const WINDOW_MS = 10_000
const NS_PER_MS = 1e6

export interface LoopLag {
  readonly p99Ms: number
  readonly maxMs: number
}

/** How late the event loop was, over the last ten to twenty seconds. */
export class LoopMonitor implements Disposable {
  readonly #histogram: ReturnType<typeof monitorEventLoopDelay>
  readonly #timer: NodeJS.Timeout
  #last: LoopLag = { p99Ms: 0, maxMs: 0 }

  constructor() {
    this.#histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
    this.#histogram.enable()
    this.#timer = setInterval(() => {
      this.#last = this.#current()
      this.#histogram.reset()
    }, WINDOW_MS).unref()
  }

  get lag(): LoopLag {
    const now = this.#current()
    return {
      p99Ms: Math.max(now.p99Ms, this.#last.p99Ms),
      maxMs: Math.max(now.maxMs, this.#last.maxMs),
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#histogram.disable()
  }

  #current(): LoopLag {
    const { max } = this.#histogram
    // Before the first tick the histogram's maximum is 0 and its percentiles mean nothing.
    if (max === 0) return { p99Ms: 0, maxMs: 0 }
    return { p99Ms: late(this.#histogram.percentile(99)), maxMs: late(max) }
  }
}

/** The histogram holds the time between two ticks, not how late the second was. */
function late(ns: number): number {
  return Math.max(0, ns / NS_PER_MS - RESOLUTION_MS)
}
