import type { FunctionReport } from '#shared/schemas/health.ts'
import { LatencyWindow } from './latency.ts'

/** How a call ended for its caller; `refused` ones never reached the function. */
export type Outcome = 'ok' | 'failed' | 'refused' | 'timedOut' | 'cancelled'

export interface LaneStats {
  readonly calls: Required<FunctionReport['calls']>
  readonly latencyMs?: NonNullable<FunctionReport['latencyMs']>
}

/** Counts of one lane since it was made. */
export class Tally {
  readonly calls = {
    ok: 0,
    failed: 0,
    refused: 0,
    timedOut: 0,
    cancelled: 0,
    retried: 0,
    asyncAccepted: 0,
    asyncDone: 0,
    asyncFailed: 0,
  }
  #latency: LatencyWindow | undefined

  count(outcome: Outcome, tookMs: number, nowMs: number): void {
    this.calls[outcome] += 1
    if (outcome === 'refused') return
    this.#latency ??= new LatencyWindow()
    this.#latency.record(tookMs, nowMs)
  }

  stats(inFlight: number, queued: number, nowMs: number): LaneStats {
    const calls = { ...this.calls, inFlight, queued }
    const latencyMs = this.#latency?.quantiles(nowMs)
    return latencyMs === undefined ? { calls } : { calls, latencyMs }
  }
}
