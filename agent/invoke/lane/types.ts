import type { FunctionSettings } from '#shared/schemas/command.ts'
import type { RunnerLink } from '../link/index.ts'
import type { BusyPoll } from './busy-poll.ts'
import type { Shares } from './shares.ts'
import type { TimerWheel } from './wheel.ts'

/** What of a function's settings concerns its calls. */
export type LaneSettings = Pick<
  FunctionSettings,
  'concurrency' | 'queue' | 'timeoutMs' | 'errors' | 'idempotent'
> & {
  /** Of a body, either way. */
  readonly bodyBytesMax: number
}

export interface LaneCallbacks {
  /** A runner did not end a call within 1,000 ms of the function's timeout: replace the handler. Once per attached link. */
  readonly onOverrun?: (link: RunnerLink) => void
  /** A call waits, and there are more calls than `alarmAbove` allows: once per time that is set. */
  readonly onDemand?: () => void
  /** A link has got the last of the calls that it was attached for; it drains by itself. */
  readonly onSpent?: (link: RunnerLink) => void
}

/** What a lane shares with the others of the node. */
export interface LaneHost {
  readonly wheel: TimerWheel
  readonly shares: Shares
  readonly poll: BusyPoll
  /** A call has begun or has got its outcome: +1, -1. */
  open(by: 1 | -1): void
}
