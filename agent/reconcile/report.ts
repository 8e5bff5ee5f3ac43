import { Fault, FAULTS } from '#shared/fault.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { FunctionReport, FunctionState as State, Reason } from '#shared/schemas/health.ts'
import { cutText } from '#shared/text.ts'
import { PASSING_MAX, type FunctionState } from './function-state.ts'

const MESSAGE_CHARS_MAX = 2_000

/**
 * One function as health reports it; undefined for one that is only on its way out.
 *
 * @param engineFault - why the engine is away, when it is
 * @param wallMs - the wall clock's time of a monotonic one
 */
export function reportOf(
  state: FunctionState,
  engineFault: Fault | undefined,
  wallMs: (atMs: number) => number,
): FunctionReport | undefined {
  const { assignment, failures, lane } = state
  if (assignment === undefined) return undefined
  const stats = lane?.stats()
  const plain = stateOf(state, assignment)
  const stuck = engineFault !== undefined && ['pending', 'starting'].includes(plain)
  const kind = stuck ? 'failed' : plain
  const reason = kind === 'ready' ? undefined : reasonOf(state, engineFault)
  const phases = Array.from(state.held.values(), ({ handler }) => handler.state.kind)
  const draining = phases.filter((phase) => phase === 'draining').length
  return {
    fn: state.fn,
    release: assignment.release,
    serving: [...(lane?.serving() ?? [])],
    state: kind,
    ...(reason === undefined ? {} : { reason }),
    handlers: {
      ready: phases.filter((phase) => phase === 'serving').length,
      starting: phases.filter((phase) =>
        ['created', 'found', 'starting', 'loading', 'ready', 'unlinked', 'resuming'].includes(
          phase,
        ),
      ).length,
      ...(draining === 0 ? {} : { draining }),
      restarts: state.restarts,
      paused: phases.filter((phase) => phase === 'paused').length,
    },
    ...(failures === 0 ? {} : { failures, retryAtMs: wallMs(state.retryAtMs) }),
    ...(state.limited ? { limited: LIMITED } : {}),
    calls: stats?.calls ?? NO_CALLS,
    ...(stats?.latencyMs === undefined ? {} : { latencyMs: stats.latencyMs }),
  }
}

/** Why the function is not as it should be; undefined when nothing is known to be wrong. */
export function reasonOf(
  { refusal, fault }: FunctionState,
  engineFault: Fault | undefined,
): Reason | undefined {
  const why = refusal ?? engineFault ?? fault
  if (why === undefined) return undefined
  const { text } = why.details
  // The function's own error is worth more than its first line.
  const message = typeof text === 'string' && text !== '' ? text : why.message
  return { code: why.code, message: cutText(message, MESSAGE_CHARS_MAX) }
}

/**
 * True when calls should be refused at once instead of waiting for a handler: none serves, and the next try will not mend
 * that within moments. A lost engine is no such case: it comes back, and calls wait for it as long as they may.
 */
export function isHopeless(state: FunctionState): boolean {
  const { assignment } = state
  if (assignment === undefined || Fault.is(state.fault, 'ENGINE_UNAVAILABLE')) return false
  const { fallback } = state
  // The release before is started again: that takes moments.
  if (fallback !== undefined && fallback.failures <= PASSING_MAX) return false
  return stateOf(state, assignment) === 'failed'
}

function stateOf(state: FunctionState, assignment: Assignment): State {
  const serving = state.servingCurrent()
  if (state.refusal !== undefined) return anyServing(state) ? 'degraded' : 'failed'
  const enough = serving >= servingMin(state, assignment) && !(serving === 0 && hasFailed(state))
  // While one of the release before still takes calls, its answers are not the new ones.
  if (enough && !state.servesOutdated()) return 'ready'
  if (serving > 0) return 'degraded'
  if (hasFailed(state)) return 'failed'
  if (state.fetching !== undefined) return 'fetching'
  return state.held.size > 0 ? 'starting' : 'pending'
}

/**
 * Handlers that must serve for it to be as it should be. Those of a function that may sleep, or of one whose handlers have
 * one call each, come and go: it is enough that one has served.
 */
function servingMin({ proven }: FunctionState, { settings }: Assignment): number {
  const { replicas, isolation } = settings
  if (proven && (replicas === 0 || isolation === 'fresh')) return 0
  return Math.max(1, replicas)
}

/**
 * A handler that ended after it had served is just started again, the first times, and so is one that did not start or wake up
 * of a function that is known to run: calls wait for that. Everything else is a failure, and so is an engine that is away.
 */
function hasFailed({ fault, failures, hasServed }: FunctionState): boolean {
  if (fault === undefined) return false
  const { code } = fault
  const passing = hasServed && FAULTS[code].retry && code !== 'ENGINE_UNAVAILABLE'
  return !(code === 'FUNCTION_EXITED' || passing) || failures > PASSING_MAX
}

function anyServing(state: FunctionState): boolean {
  return state.held.values().some(({ handler }) => handler.state.kind === 'serving')
}

const LIMITED: Reason = {
  code: 'MEMORY_BUDGET',
  message:
    'its calls need more handlers than the memory for functions on this host has room for (SHOAL_MEMORY_BUDGET)',
}

const NO_CALLS: FunctionReport['calls'] = {
  ok: 0,
  failed: 0,
  refused: 0,
  timedOut: 0,
  cancelled: 0,
  asyncAccepted: 0,
  asyncDone: 0,
  asyncFailed: 0,
  inFlight: 0,
  queued: 0,
}
