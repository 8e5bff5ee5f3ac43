import { setTimeout as sleep } from 'node:timers/promises'

export interface EventuallyOptions {
  /** Default 30,000: for a machine whose host gives it little time. */
  readonly timeoutMs?: number
  /** Default 25. */
  readonly everyMs?: number
  readonly signal?: AbortSignal
}

/**
 * Polls until `probe` returns a value (not `undefined`, not `false`); what it throws counts as "not yet". The failure shows
 * the probe and its last error, not just "timed out". The only way for a test to wait for real time.
 */
export async function eventually<T>(
  probe: () => T | Promise<T>,
  { timeoutMs = 30_000, everyMs = 25, signal }: EventuallyOptions = {},
): Promise<Exclude<T, undefined | false>> {
  const deadlineMs = performance.now() + timeoutMs
  let cause: unknown
  for (;;) {
    signal?.throwIfAborted()
    try {
      const seen = await probe()
      if (happened(seen)) return seen
      cause = undefined
    } catch (error) {
      cause = error
    }
    if (performance.now() > deadlineMs) {
      const last = cause instanceof Error ? `; last error: ${cause.message}` : ''
      throw new Error(`not true within ${timeoutMs} ms: ${probe.toString()}${last}`, { cause })
    }
    await sleep(everyMs, undefined, signal === undefined ? {} : { signal })
  }
}

function happened<T>(seen: T): seen is Exclude<T, undefined | false> {
  return seen !== undefined && seen !== false
}
