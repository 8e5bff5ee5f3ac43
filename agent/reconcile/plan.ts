import type {
  Actual,
  ActualFunction,
  ActualHandler,
  Desired,
  LeaveReason,
  StartReason,
  Step,
} from './model.ts'

/**
 * Decides the next steps from where the node is towards where it should be.
 *
 * Pure and total: the same input gives the same steps in the same order. It plans one round only; the caller applies it,
 * observes and asks again, so a lost event, a crash or a step that failed needs no special case. Empty = converged, or
 * something is under way whose end will wake the caller, or `retryAtMs` is still to come.
 *
 * Rules for one function:
 * - New handlers start beside the old; the old are drained when as many new as wanted serve. A release that does not start
 *   therefore never takes a working one away.
 * - Draining ends with the last call, which may take an hour. Of very many handlers that drain, the oldest are stopped.
 * - A handler that overran is drained when others serve in its place; one that is blocked at once, because it answers nobody.
 * - After a failure one handler is tried at a time, not before `retryAtMs`.
 * - Whatever was found running of a wanted function is adopted first, even when it is outdated: it serves meanwhile.
 */
export function plan(desired: readonly Desired[], actual: Actual, nowMs: number): Step[] {
  const wanted = new Map(desired.map((want) => [want.fn, want]))
  const known = new Map(actual.functions.map((have) => [have.fn, have]))
  const names = [...new Set([...wanted.keys(), ...known.keys()])].toSorted()
  const steps: Step[] = []
  for (const fn of names) {
    const have = known.get(fn) ?? unknownFunction(fn)
    const want = wanted.get(fn)
    steps.push(...(want === undefined ? planRemoval(have) : planFunction(want, have, nowMs)))
  }
  for (const { id } of actual.orphans) steps.push({ kind: 'remove-orphan', id, reason: 'unknown' })
  return steps.filter((step) => isPossible(step, actual, known, nowMs))
}

/**
 * Of one function: as many as a node may have replicas of it, so that a switch never loses a call. More is a series of switches
 * while calls are long, and memory is worth more than the calls of a release that was replaced again and again.
 */
const DRAINING_MAX = 64

function planRemoval(have: ActualFunction): Step[] {
  const { fn, handlers, routing } = have
  const steps: Step[] = []
  if (routing !== undefined) steps.push({ kind: 'unroute', fn, reason: 'unwanted' })
  for (const handler of handlers) steps.push(...leave(fn, handler, 'unwanted'))
  if (steps.length === 0 && handlers.length === 0) {
    steps.push({ kind: 'forget', fn, reason: 'unwanted' })
  }
  return steps
}

function planFunction(want: Desired, have: ActualFunction, nowMs: number): Step[] {
  const { fn, handlers } = have
  const steps: Step[] = []
  if (have.routing !== want.routing) {
    steps.push({ kind: 'route', fn, reason: have.routing === undefined ? 'new' : 'settings' })
  }
  for (const { id, phase } of handlers) {
    if (phase === 'dead' || phase === 'drained') steps.push({ kind: 'stop', fn, id, reason: phase })
  }
  for (const { id } of handlers.filter(isDraining).slice(0, -DRAINING_MAX)) {
    steps.push({ kind: 'stop', fn, id, reason: 'crowded' })
  }
  const usable = handlers.filter(isUsable)
  if (want.spec === undefined) return [...steps, ...planOpening(fn, usable)]
  const current = usable.filter((handler) => handler.spec === want.spec)
  const sound = current.filter((handler) => handler.suspect === undefined)
  const kept = sound.toSorted(byUse).slice(0, want.replicas)
  const bridging = usable.filter((handler) => handler.spec !== want.spec && handler.proven)
  const leaving = planLeaving(want, usable, kept)
  const going = new Set(leaving.map((step) => ('id' in step ? step.id : '')))
  const opening = [...kept, ...bridging].filter(({ id }) => !going.has(id))
  return [
    ...steps,
    ...planStarts(want, have, kept.length, nowMs),
    ...planOpening(fn, opening),
    ...leaving,
  ]
}

/** How many more handlers, and where their bundle comes from. */
function planStarts(want: Desired, have: ActualFunction, sound: number, nowMs: number): Step[] {
  const { fn, bundle, handlers, failures, retryAtMs } = have
  const missing = want.replicas - sound
  if (missing <= 0 || nowMs < retryAtMs) return []
  if (bundle === 'absent') return [{ kind: 'fetch', fn, reason: 'missing' }]
  if (bundle === 'fetching') return []
  const opening = handlers.some(({ phase, spec }) => phase === 'starting' && spec === want.spec)
  const count = failures === 0 ? missing : opening ? 0 : 1
  const reason = startReason(want, handlers)
  return Array.from({ length: count }, () => ({ kind: 'start', fn, reason }) as const)
}

function startReason(want: Desired, handlers: readonly ActualHandler[]): StartReason {
  const usable = handlers.filter(isUsable)
  const suspect = usable.find((handler) => handler.suspect !== undefined)?.suspect
  if (suspect !== undefined) return suspect
  return usable.some(({ spec }) => spec !== want.spec) ? 'outdated' : 'missing'
}

/** Brings handlers that shall serve one step further. */
function planOpening(fn: string, handlers: readonly ActualHandler[]): Step[] {
  const steps: Step[] = []
  for (const { id, phase, suspect } of handlers) {
    if (phase === 'found') steps.push({ kind: 'adopt', fn, id, reason: 'found' })
    if (phase === 'ready' && suspect === undefined) {
      steps.push({ kind: 'attach', fn, id, reason: 'ready' })
    }
  }
  return steps
}

/** Which of the usable ones may go now. `kept`: the sound ones of the wanted spec that stay. */
function planLeaving(
  want: Desired,
  usable: readonly ActualHandler[],
  kept: readonly ActualHandler[],
): Step[] {
  const replaced = kept.filter(({ phase }) => phase === 'serving').length >= want.replicas
  const steps: Step[] = []
  for (const handler of usable) {
    if (kept.includes(handler)) continue
    const reason = leaveReason(want, handler)
    // What never served and is outdated already is waste; what did serve waits for its replacement.
    const superseded = reason === 'outdated' && !handler.proven
    if (replaced || superseded || reason === 'surplus' || reason === 'blocked') {
      steps.push(...leave(want.fn, handler, reason))
    }
  }
  return steps
}

function leaveReason(want: Desired, handler: ActualHandler): LeaveReason {
  if (handler.suspect !== undefined) return handler.suspect
  return handler.spec === want.spec ? 'surplus' : 'outdated'
}

/** What takes a handler one step further out, from wherever it is. */
function leave(fn: string, { id, phase }: ActualHandler, reason: LeaveReason): Step[] {
  if (phase === 'draining' || phase === 'stopping') return []
  if (phase === 'serving') return [{ kind: 'drain', fn, id, reason }]
  const done = phase === 'drained' || phase === 'dead'
  return [{ kind: 'stop', fn, id, reason: done ? phase : reason }]
}

const NEEDS_ENGINE: ReadonlySet<Step['kind']> = new Set(['start', 'adopt', 'stop', 'remove-orphan'])

/** Steps that need the engine wait for it, and a handler that could not be stopped waits for its time. */
function isPossible(
  step: Step,
  actual: Actual,
  known: ReadonlyMap<string, ActualFunction>,
  nowMs: number,
): boolean {
  if (actual.engine === 'lost' && NEEDS_ENGINE.has(step.kind)) return false
  if (step.kind !== 'stop') return true
  const handler = known.get(step.fn)?.handlers.find(({ id }) => id === step.id)
  return nowMs >= (handler?.retryAtMs ?? 0)
}

function isDraining({ phase }: ActualHandler): boolean {
  return phase === 'draining'
}

function isUsable({ phase }: ActualHandler): boolean {
  return phase === 'found' || phase === 'starting' || phase === 'ready' || phase === 'serving'
}

const USE = ['serving', 'ready', 'starting', 'found'] as const

/** The further on, the rather kept. Stable: among equals the older. */
function byUse(a: ActualHandler, b: ActualHandler): number {
  return rank(a) - rank(b)
}

function rank({ phase }: ActualHandler): number {
  const at = USE.findIndex((use) => use === phase)
  return at === -1 ? USE.length : at
}

function unknownFunction(fn: string): ActualFunction {
  return { fn, handlers: [], bundle: 'absent', routing: undefined, failures: 0, retryAtMs: 0 }
}
