import { headBytes, requestHead } from '../frames/index.ts'
import type { RunnerLink } from '../link/index.ts'
import type { Invocation } from '../model.ts'

/** A link that takes, or took, calls of a lane. */
export class Attachment {
  readonly link: RunnerLink
  readonly release: string
  /** Calls in flight at once. */
  readonly concurrency: number
  /** Calls that it takes still; undefined: no limit. */
  callsLeft: number | undefined
  /** Ends the waiting of `drain`. */
  drained: (() => void) | undefined
  /** Calls that have ended here; one that does not rise while calls are in flight makes the lane send PING. */
  ended = 0
  endedBefore = -1
  overrun = false

  constructor(link: RunnerLink, release: string, concurrency: number, callsMax?: number) {
    this.link = link
    this.release = release
    this.concurrency = concurrency
    this.callsLeft = callsMax
  }

  get hasRoom(): boolean {
    return this.link.takesCalls && this.link.inFlight < this.concurrency
  }

  /**
   * Counts a call that is about to be sent.
   *
   * @returns whether it is the last one
   * @throws Fault `REQUEST_INVALID` when it cannot be sent: it shall not use up a handler. Only links with a limit pay for the look
   */
  spend(invocation: Invocation): boolean {
    if (this.callsLeft === undefined) return false
    headBytes(requestHead(invocation))
    this.callsLeft -= 1
    return this.callsLeft === 0
  }

  get load(): number {
    return this.link.inFlight / this.concurrency
  }
}

/**
 * The one with room that has the least to do; one whose loop is blocked only when there is no other.
 *
 * @param not - is not to be chosen
 */
export function leastLoaded(
  attached: readonly Attachment[],
  not?: Attachment,
): Attachment | undefined {
  let best: Attachment | undefined
  let bestLoad = Number.POSITIVE_INFINITY
  for (const candidate of attached) {
    if (!candidate.hasRoom || candidate === not) continue
    const load = candidate.load + (candidate.link.blocked ? 2 : 0)
    if (load < bestLoad) {
      best = candidate
      bestLoad = load
    }
  }
  return best
}
