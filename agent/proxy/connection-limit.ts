import { readFileSync } from 'node:fs'

/** For everything else that the agent opens: runners, Docker, NATS, files. */
const KEPT_DESCRIPTORS = 512
const LEAST = 64

/**
 * How many connections a front may hold: no more than its share of the descriptors that this process may open, for when those are
 * used up nothing works any more, not even the start of a handler.
 *
 * @param most - when there are enough descriptors
 * @param share - of those, 0 to 1
 */
export function connectionLimit(most: number, share: number): number {
  const within = Math.floor((descriptorLimit() - KEPT_DESCRIPTORS) * share)
  return Math.max(LEAST, Math.min(most, within))
}

/** The soft limit, which Node raises to the hard one when it starts; unlimited where it is not known. */
function descriptorLimit(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8')
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY)
  } catch {
    return Number.POSITIVE_INFINITY
  }
}
