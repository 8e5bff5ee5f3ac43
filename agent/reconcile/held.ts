import type { Lane } from '#agent/invoke/index.ts'
import type { Handler, HandlerState } from '#agent/handlers/index.ts'
import type { ActualHandler, HandlerPhase } from './model.ts'

/** One handler with what only the reconciler knows of it. Times are monotonic milliseconds. */
export interface Held {
  readonly handler: Handler
  /** When it was made here, or found. */
  readonly sinceMs: number
  /** The lane it was attached to; a function removed and deployed again has another one. */
  lane: Lane | undefined
  proven: boolean
  servingSinceMs: number | undefined
  /** Since when it is paused. */
  pausedAtMs: number | undefined
  suspect: 'overrun' | 'blocked' | undefined
  /** It has been sent the one call that it was there for. */
  spent: boolean
  /** It was paused when it was found. */
  readonly foundPaused: boolean
  /** Its adoption has been ordered. */
  adopting: boolean
  /** Its removal has been ordered. */
  leaving: boolean
  /** Its pause has been ordered, and no resumption since: whatever happens to it, nobody waits for it. */
  resting: boolean
  /** It failed outside of its own life (attach): treated as dead. */
  broken: boolean
  /** Its failure has been counted. */
  counted: boolean
  stopFailures: number
  stopRetryAtMs: number
}

export function newHeld(
  handler: Handler,
  sinceMs: number,
  proven: boolean,
  foundPaused = false,
): Held {
  return {
    handler,
    sinceMs,
    foundPaused,
    lane: undefined,
    proven,
    servingSinceMs: undefined,
    pausedAtMs: undefined,
    suspect: undefined,
    spent: false,
    adopting: false,
    leaving: false,
    resting: false,
    broken: false,
    counted: false,
    stopFailures: 0,
    stopRetryAtMs: 0,
  }
}

/** @param keepMs - how long one is kept when it is paused */
export function observe(held: Held, keepMs: number): ActualHandler {
  const { handler, proven, spent, pausedAtMs, stopRetryAtMs } = held
  const suspect = suspectOf(held)
  return {
    id: handler.id,
    spec: handler.record.specDigest,
    phase: phaseOf(held),
    proven,
    memoryMiB: handler.record.limits.memoryMiB,
    ...(suspect === undefined ? {} : { suspect }),
    ...(handler.pausable ? { pausable: true } : {}),
    // Nobody knows whether one that an earlier agent has left has had its call.
    ...(spent || (handler.record.fresh === true && handler.state.kind === 'found')
      ? { spent: true }
      : {}),
    ...(pausedAtMs === undefined ? {} : { pausedUntilMs: pausedAtMs + keepMs }),
    ...(stopRetryAtMs === 0 ? {} : { retryAtMs: stopRetryAtMs }),
  }
}

/** Whether its loop is blocked may show only after the overrun: a PONG has to be overdue for a second. */
function suspectOf({ handler: { state }, suspect }: Held): Held['suspect'] {
  const isSilent = suspect === 'overrun' && state.kind === 'serving' && state.link.blocked
  return isSilent ? 'blocked' : suspect
}

const PHASES: { readonly [K in HandlerState['kind']]: HandlerPhase } = {
  created: 'starting',
  found: 'found',
  starting: 'starting',
  loading: 'starting',
  unlinked: 'starting',
  ready: 'ready',
  serving: 'serving',
  draining: 'draining',
  drained: 'drained',
  pausing: 'pausing',
  paused: 'paused',
  resuming: 'starting',
  failed: 'dead',
  stopping: 'stopping',
  stopped: 'stopping',
  left: 'stopping',
}

const OPENING: ReadonlySet<HandlerState['kind']> = new Set(['created', 'starting', 'loading'])

/** It has never been ready, and nobody knows yet whether it will be. */
export function isOpening({ handler }: Held): boolean {
  return OPENING.has(handler.state.kind)
}

function phaseOf({ handler, adopting, leaving, broken }: Held): HandlerPhase {
  const phase = PHASES[handler.state.kind]
  if (leaving || phase === 'stopping') return 'stopping'
  if (broken) return 'dead'
  return phase === 'found' && adopting ? 'starting' : phase
}
