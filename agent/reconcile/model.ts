/** One function that shall run here, as far as a plan needs to know it. */
export interface Desired {
  readonly fn: string
  /** Digest of the handlers that are wanted; undefined: they cannot be had now (the report says why), so what runs stays. */
  readonly spec: string | undefined
  /** Handlers that shall take calls now; 0: it sleeps. */
  readonly replicas: number
  /** How many of them whatever the demand and the memory. */
  readonly replicasMin: number
  /** Limit of one handler. */
  readonly memoryMiB: number
  /** A handler is paused while it sleeps. */
  readonly sleeps: boolean
  /** A handler of the release before is paused for a quick way back. */
  readonly keeps: boolean
  /** The release that served before this one, as long as this one has not; to be had again at this time. */
  readonly fallback?: { readonly spec: string; readonly retryAtMs: number }
  /** Of the settings that the lane applies; another one is given to it. */
  readonly routing: string
}

/**
 * - found: of an earlier agent, runs, not adopted yet
 * - starting: on its way to ready (or back to it, after its connection broke)
 * - ready: could take calls
 * - serving: takes calls
 * - draining: finishes calls; drained: has none
 * - pausing, paused: its processes stand still; resumed, it is `starting` and soon ready
 * - dead: failed, or its process is gone
 * - stopping: on its way out
 */
export type HandlerPhase =
  | 'found'
  | 'starting'
  | 'ready'
  | 'serving'
  | 'draining'
  | 'drained'
  | 'pausing'
  | 'paused'
  | 'dead'
  | 'stopping'

export interface ActualHandler {
  readonly id: string
  readonly spec: string
  readonly phase: HandlerPhase
  /** Has served, here or under an earlier agent. */
  readonly proven: boolean
  /** Why it has to be replaced: `overrun` may still answer others, `blocked` answers nobody. */
  readonly suspect?: 'overrun' | 'blocked'
  readonly memoryMiB: number
  /** When it is drained: its link is sound and idle, so it could be paused, or take calls again. */
  readonly pausable?: true
  /** Has had the one call that it was there for, or has it still, or may have had it under an earlier agent. */
  readonly spent?: true
  /** When it is paused: kept until then. */
  readonly pausedUntilMs?: number
  /** Stopping it failed: not again before this time. */
  readonly retryAtMs?: number
}

export interface ActualFunction {
  readonly fn: string
  /** Oldest first. */
  readonly handlers: readonly ActualHandler[]
  readonly bundle: 'absent' | 'fetching' | 'present'
  /** Of the settings the lane has; undefined: no lane. */
  readonly routing: string | undefined
  /** Starts or fetches that went wrong in a row. */
  readonly failures: number
  /** No start and no fetch before this time. */
  readonly retryAtMs: number
}

/** What the engine or the disk still has and nobody knows: a container or process, a folder, or both. */
export interface Orphan {
  readonly id: string
}

export interface Actual {
  /** `lost`: does not answer; nothing that needs it is planned. */
  readonly engine: 'present' | 'lost'
  readonly functions: readonly ActualFunction[]
  readonly orphans: readonly Orphan[]
  /** Paused handlers whose memory is needed. */
  readonly giveUp: ReadonlySet<string>
}

/** `fallback`: not of the wanted release, which fails, but of the one that served before. */
export type StartReason = 'missing' | 'outdated' | 'overrun' | 'blocked' | 'fallback'
/** `used`: it was there for one call. `idle`: the function sleeps. */
export type LeaveReason =
  | 'unwanted'
  | 'outdated'
  | 'surplus'
  | 'overrun'
  | 'blocked'
  | 'used'
  | 'idle'
/** `kept`: of the release before. */
export type PauseReason = 'idle' | 'kept'
/** Of a paused handler. `superseded`: there is a newer one to keep. `memory`: others need its memory. */
export type GiveUpReason = 'expired' | 'superseded' | 'memory'
/** `drained`: has no calls any more; `crowded`: newer ones drain, and too many of them. */
type StopReason = LeaveReason | GiveUpReason | 'drained' | 'crowded' | 'dead'

/** One small change. The planner emits these; only the executor performs them. */
export type Step =
  /** Makes the function known to callers, or gives its lane new settings. */
  | { readonly kind: 'route'; readonly fn: string; readonly reason: 'new' | 'settings' }
  | { readonly kind: 'unroute'; readonly fn: string; readonly reason: 'unwanted' }
  | { readonly kind: 'fetch'; readonly fn: string; readonly reason: 'missing' }
  | { readonly kind: 'start'; readonly fn: string; readonly reason: StartReason }
  | { readonly kind: 'adopt'; readonly fn: string; readonly id: string; readonly reason: 'found' }
  | { readonly kind: 'attach'; readonly fn: string; readonly id: string; readonly reason: 'ready' }
  | {
      readonly kind: 'drain'
      readonly fn: string
      readonly id: string
      readonly reason: LeaveReason
    }
  | {
      readonly kind: 'stop'
      readonly fn: string
      readonly id: string
      readonly reason: StopReason
    }
  | {
      readonly kind: 'pause'
      readonly fn: string
      readonly id: string
      readonly reason: PauseReason
    }
  | {
      readonly kind: 'resume'
      readonly fn: string
      readonly id: string
      readonly reason: StartReason
    }
  /** Nothing of the function is left and nothing is wanted. */
  | { readonly kind: 'forget'; readonly fn: string; readonly reason: 'unwanted' }
  | { readonly kind: 'remove-orphan'; readonly id: string; readonly reason: 'unknown' }
