import type { RunnerLink } from '#agent/invoke/index.ts'
import type { Fault } from '#shared/fault.ts'

/**
 * ```
 * created --start()--> starting --HELLO--> loading --READY--> ready --attach()--> serving
 * found ---adopt()---> starting               ^                 ^                   |
 *                                             |                 |                   |
 *                                    HELLO -- unlinked <--------|------ link lost --+
 *                                                               |                   |
 *                                        resuming -- PONG ------+                drain()
 *                                           ^                                       |
 *                                        resume()                                   v
 *                                           +--- paused <-- pausing <--pause()-- drained <-- draining
 * any of these, when its process ends, says nothing in time or cannot load --> failed
 * any --stop()--> stopping --> stopped          any --leave()--> left (goes on without this agent)
 * ```
 */
export type HandlerState =
  | { readonly kind: 'created' | 'found' | 'starting' | 'loading' | 'unlinked' }
  | { readonly kind: 'ready' | 'serving' | 'draining'; readonly link: RunnerLink }
  | { readonly kind: 'drained' | 'stopping' | 'stopped' | 'left' }
  | { readonly kind: 'pausing' | 'paused' | 'resuming'; readonly link: RunnerLink }
  | { readonly kind: 'failed'; readonly fault: Fault }

/** True when nothing that happens to the handler's process matters any more. */
export function isOver({ kind }: HandlerState): boolean {
  return ['draining', 'drained', 'stopping', 'stopped', 'left', 'failed'].includes(kind)
}

/** Milliseconds from the beginning of the start to the end of each part; absent: not reached, or adopted. */
export interface HandlerTimings {
  /** Not for one that is made of a spare: its folder is there. */
  readonly folderMs?: number
  /** As `folderMs`. */
  readonly engineMs?: number
  /** The code is in its place, and the limits are the function's. */
  readonly equippedMs?: number
  readonly helloMs?: number
  readonly readyMs?: number
}

export interface HandlerTimeouts {
  /** From the engine's start to HELLO. */
  readonly helloMs: number
  /** From INIT to READY: installing nothing, importing everything. */
  readonly loadMs: number
  /** For the runner of a handler that is adopted to connect; it tries again at least once a second. */
  readonly adoptMs: number
  /** One that runs and says nothing for so long is woken: its agent was ended while it paused it. */
  readonly awakeMs: number
  /** For a runner that lost its connection while its process goes on. */
  readonly relinkMs: number
  /** For a runner that was paused to answer. */
  readonly resumeMs: number
  /** From SHUTDOWN to force. */
  readonly shutdownMs: number
}

export const HANDLER_TIMEOUTS: HandlerTimeouts = {
  helloMs: 30_000,
  loadMs: 60_000,
  adoptMs: 5_000,
  awakeMs: 1_000,
  relinkMs: 2_000,
  resumeMs: 2_000,
  shutdownMs: 1_000,
}
