/** At most so often: a look at everything takes tens of milliseconds. */
const ALL_EVERY_MS = 500

export interface BodyGarbageOptions {
  /** Collects what is young; a millisecond. */
  readonly young: () => void
  /** Collects everything; tens of milliseconds. */
  readonly all: () => void
  /** What bodies and their garbage take now. */
  readonly bytes: () => number
  /** Above this everything is looked at. */
  readonly bytesMax: number
  readonly nowMs?: () => number
}

/**
 * Has bodies collected that have gone. The engine sees that they are garbage, but not how near the process is to its limit: it lets 64 MiB
 * and more of them wait, and of those that have become old, any number.
 *
 * @returns to be called whenever some new memory has been taken
 */
export function bodyGarbage(options: BodyGarbageOptions): () => void {
  const { young, all, bytes, bytesMax, nowMs = () => performance.now() } = options
  let allAtMs = Number.NEGATIVE_INFINITY
  return () => {
    young()
    if (bytes() <= bytesMax || nowMs() - allAtMs < ALL_EVERY_MS) return
    all()
    allAtMs = nowMs()
  }
}
