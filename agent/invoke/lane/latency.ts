/** 16 steps per power of two from 1 µs on: each at most 6.25 % wide; 28 powers reach 4.4 minutes and more in the last one. */
const STEPS = 16
const POWERS = 33
const HALF_MS = 30_000

export interface Quantiles {
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly max: number
}

class Histogram {
  readonly counts = new Uint32Array(STEPS * POWERS)
  total = 0
  maxMs = 0

  clear(): void {
    this.counts.fill(0)
    this.total = 0
    this.maxMs = 0
  }
}

/**
 * Latency quantiles of the last 30 to 60 seconds in 8 KiB, whatever the number of calls: two log-linear histograms that
 * take turns.
 */
export class LatencyWindow {
  #current = new Histogram()
  #before = new Histogram()
  #turnAtMs: number | undefined

  record(tookMs: number, nowMs: number): void {
    this.#turn(nowMs)
    const current = this.#current
    const index = indexOf(tookMs)
    current.counts[index] = (current.counts[index] ?? 0) + 1
    current.total += 1
    if (tookMs > current.maxMs) current.maxMs = tookMs
  }

  /** Undefined when nothing was recorded in that time. */
  quantiles(nowMs: number): Quantiles | undefined {
    this.#turn(nowMs)
    const total = this.#current.total + this.#before.total
    if (total === 0) return undefined
    const max = Math.max(this.#current.maxMs, this.#before.maxMs)
    const at = (share: number): number => Math.min(this.#valueAt(Math.ceil(share * total)), max)
    return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max }
  }

  #valueAt(rank: number): number {
    let seen = 0
    for (let index = 0; index < STEPS * POWERS; index += 1) {
      seen += (this.#current.counts[index] ?? 0) + (this.#before.counts[index] ?? 0)
      if (seen >= rank) return upperMs(index)
    }
    return upperMs(STEPS * POWERS - 1)
  }

  #turn(nowMs: number): void {
    this.#turnAtMs ??= nowMs + HALF_MS
    if (nowMs < this.#turnAtMs) return
    const old = this.#before
    this.#before = this.#current
    this.#current = old
    old.clear()
    // After a pause, what was current is too old as well.
    if (nowMs >= this.#turnAtMs + HALF_MS) this.#before.clear()
    this.#turnAtMs = nowMs + HALF_MS
  }
}

/** Below 16 µs the index is the number of µs; above, 16 steps per power of two. */
function indexOf(tookMs: number): number {
  const micros = Math.min(Math.max(0, Math.floor(tookMs * 1_000)), 0xffff_ffff)
  if (micros < STEPS) return micros
  const power = 31 - Math.clz32(micros)
  return (power - 3) * STEPS + ((micros >>> (power - 4)) & (STEPS - 1))
}

/** The end of a step, exclusive, in milliseconds. */
function upperMs(index: number): number {
  if (index < STEPS) return (index + 1) / 1_000
  const power = Math.floor(index / STEPS) + 3
  return ((STEPS + (index % STEPS) + 1) * 2 ** (power - 4)) / 1_000
}
