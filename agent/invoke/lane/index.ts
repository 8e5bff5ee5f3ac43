/**
 * The calls of one function: admission, queue, deadlines, choice of a link, drain, counts.
 * Depends on shared and invoke/link; knows no names, protocols or handlers.
 * Used by invoke/router, handlers/ (attach, drain) and health/ (stats).
 */
export { BusyPoll } from './busy-poll.ts'
export { Lane } from './lane.ts'
export type { LaneCallbacks, LaneHost, LaneSettings } from './types.ts'
export type { LaneDemand } from './gauge.ts'
export { leanFault } from './lean-fault.ts'
export { Shares } from './shares.ts'
export type { LaneStats } from './tally.ts'
export { TimerWheel } from './wheel.ts'
