export const BACKOFF = { firstMs: 250, lastMs: 60_000 } as const

/**
 * Pause before the next try. The first failure costs none: most handlers that end once run when started again.
 *
 * @param failures - in a row, at least 1
 * @param random - 0 to 1; spreads the pause over its upper half, so that many nodes do not try in step
 */
export function backoffMs(failures: number, random: number): number {
  if (failures <= 1) return 0
  const fullMs = Math.min(BACKOFF.lastMs, BACKOFF.firstMs * 2 ** Math.min(failures - 2, 20))
  return Math.round(fullMs * (0.5 + random / 2))
}
