/** What one round of load found. Times in milliseconds. */
export interface Round {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly errors: number
}

export interface LoadOptions {
  readonly port: number
  readonly payload: Buffer
  readonly inFlight: number
  readonly durationMs: number
}

/** Value at share `q` (0 to 1) of a sorted list; 0 for an empty one. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0
}

/** Latencies of one round, bounded: beyond `SAMPLES_MAX` calls every further one replaces an older one. */
export class Samples {
  static readonly SAMPLES_MAX = 1_000_000
  readonly #values = new Float64Array(Samples.SAMPLES_MAX)
  count = 0

  add(ms: number): void {
    this.#values[this.count % Samples.SAMPLES_MAX] = ms
    this.count += 1
  }

  round(durationMs: number, errors: number): Round {
    const sorted = this.#values.slice(0, Math.min(this.count, Samples.SAMPLES_MAX)).toSorted()
    return {
      perSecond: Math.round((this.count * 1000) / durationMs),
      p50Ms: Number(quantile(sorted, 0.5).toFixed(3)),
      p99Ms: Number(quantile(sorted, 0.99).toFixed(3)),
      errors,
    }
  }
}

export function median(values: readonly number[]): number {
  return quantile(
    values.toSorted((a, b) => a - b),
    0.5,
  )
}
