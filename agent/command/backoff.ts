/**
 * How long to wait before try number `attempt` (from 0): doubling from `minMs` up to `maxMs`, with up to half of it taken off at random
 * so that many nodes do not come back at the same moment.
 */
export function backoffMs(
  attempt: number,
  minMs: number,
  maxMs: number,
  random: () => number = Math.random,
): number {
  const full = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30))
  return Math.round(full * (1 - random() / 2))
}
