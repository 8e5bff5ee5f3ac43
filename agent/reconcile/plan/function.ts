import type {
  ActualFunction,
  ActualHandler,
  Desired,
  LeaveReason,
  StartReason,
  Step,
} from '../model.ts'
import { isReusable, planRest } from './rest.ts'

/**
 * Of one function: as many as a node may have replicas of it, so that a switch never loses a call. More is a series of switches
 * while calls are long, and memory is worth more than the calls of a release that was replaced again and again.
 */
const DRAINING_MAX = 64

/** Steps of a function that nobody wants any more. */
export function planRemoval(have: ActualFunction): Step[] {
  const { fn, handlers, routing } = have
  const steps: Step[] = []
  if (routing !== undefined) steps.push({ kind: 'unroute', fn, reason: 'unwanted' })
  for (const handler of handlers) steps.push(...leave(fn, handler, 'unwanted'))
  if (steps.length === 0 && handlers.length === 0) {
    steps.push({ kind: 'forget', fn, reason: 'unwanted' })
  }
  return steps
}

/** Steps of a wanted function; see `plan` for the rules. */
export function planFunction(
  want: Desired,
  have: ActualFunction,
  giveUp: ReadonlySet<string>,
  nowMs: number,
): Step[] {
  const { fn, handlers } = have
  const steps: Step[] = []
  if (have.routing !== want.routing) {
    steps.push({ kind: 'route', fn, reason: have.routing === undefined ? 'new' : 'settings' })
  }
  const draining = handlers.filter(({ phase }) => phase === 'draining')
  for (const { id } of draining.slice(0, -DRAINING_MAX)) {
    steps.push({ kind: 'stop', fn, id, reason: 'crowded' })
  }
  const usable = handlers.filter(isUsable)
  if (want.spec === undefined) {
    const rest = planRest(want, have, { resumed: new Set(), giveUp }, nowMs)
    return [...steps, ...rest, ...planOpening(fn, usable)]
  }
  const current = usable.filter((handler) => handler.spec === want.spec)
  const sound = current.filter((handler) => handler.suspect === undefined)
  const kept = sound.toSorted(byUse).slice(0, want.replicas)
  const bridging = usable.filter((handler) => handler.spec !== want.spec && handler.proven)
  const missing = want.replicas - kept.length
  // Nothing serves that should, or is about to.
  const bare = want.replicas > 0 && !isServed(sound, bridging)
  const resumes = planResumes(want, have, { missing, giveUp, bare })
  const resumed = new Set(resumes.map(({ id }) => id))
  // Sooner back than a new one is there, though it has to be paused to the end first.
  const coming = handlers.filter(({ phase, spec }) => phase === 'pausing' && spec === want.spec)
  const leaving = planLeaving(want, handlers, kept)
  const going = new Set(leaving.map((step) => ('id' in step ? step.id : '')))
  const opening = [...kept, ...bridging].filter(({ id }) => !going.has(id))
  return [
    ...steps,
    ...planRest(want, have, { resumed, giveUp }, nowMs),
    ...resumes,
    ...planStarts(want, have, missing - resumed.size - coming.length, nowMs),
    ...planFallback(want, have, bare && resumed.size === 0, nowMs),
    ...planOpening(fn, opening),
    ...leaving,
  ]
}

type Resume = Extract<Step, { readonly kind: 'resume' }>

/** Paused handlers, and drained ones that were not needed for a moment, that take calls again. */
function planResumes(
  want: Desired,
  { fn, handlers, failures }: ActualFunction,
  { missing, giveUp, bare }: { missing: number; giveUp: ReadonlySet<string>; bare: boolean },
): Resume[] {
  const paused = handlers.filter(({ id, phase }) => phase === 'paused' && !giveUp.has(id))
  const drained = handlers.filter((one) => one.phase === 'drained' && isReusable(one))
  const resumes: Resume[] = [...drained, ...paused]
    .filter(({ spec }) => spec === want.spec)
    .slice(0, Math.max(0, missing))
    .map(({ id }) => ({ kind: 'resume', fn, id, reason: startReason(want, handlers) }))
  const { fallback } = want
  if (resumes.length > 0 || failures === 0 || !bare || fallback === undefined) return resumes
  return paused
    .filter(({ spec }) => spec === fallback.spec)
    .slice(0, 1)
    .map(({ id }) => ({ kind: 'resume', fn, id, reason: 'fallback' }))
}

/** How many more handlers, and where their bundle comes from. */
function planStarts(want: Desired, have: ActualFunction, missing: number, nowMs: number): Step[] {
  const { fn, bundle, handlers, failures, retryAtMs } = have
  if (missing <= 0 || nowMs < retryAtMs) return []
  if (bundle === 'absent') return [{ kind: 'fetch', fn, reason: 'missing' }]
  if (bundle === 'fetching') return []
  const opening = handlers.some(({ phase, spec }) => phase === 'starting' && spec === want.spec)
  const count = failures === 0 ? missing : opening ? 0 : 1
  const reason = startReason(want, handlers)
  return Array.from({ length: count }, () => ({ kind: 'start', fn, reason }) as const)
}

/** The release that served before, while the wanted one fails and nothing serves. One handler is enough for that. */
function planFallback(want: Desired, have: ActualFunction, bare: boolean, nowMs: number): Step[] {
  const { fn, failures } = have
  const { fallback } = want
  if (fallback === undefined || failures === 0 || !bare || nowMs < fallback.retryAtMs) return []
  return [{ kind: 'start', fn, reason: 'fallback' }]
}

function isServed(sound: readonly ActualHandler[], bridging: readonly ActualHandler[]): boolean {
  return bridging.length > 0 || sound.some(({ phase }) => phase === 'serving' || phase === 'ready')
}

function startReason({ spec: wanted }: Desired, handlers: readonly ActualHandler[]): StartReason {
  const usable = handlers.filter(isUsable)
  const suspect = usable.find((handler) => handler.suspect !== undefined)?.suspect
  if (suspect !== undefined) return suspect
  return usable.some(({ spec }) => spec !== wanted) ? 'outdated' : 'missing'
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

/** Which of those that are there may go now. `kept`: the sound ones of the wanted spec that stay. */
function planLeaving(
  want: Desired,
  handlers: readonly ActualHandler[],
  kept: readonly ActualHandler[],
): Step[] {
  const replaced = kept.filter(({ phase }) => phase === 'serving').length >= want.replicas
  const steps: Step[] = []
  for (const handler of handlers) {
    const reason = leaveReason(want, handler)
    if (isStuck(handler)) steps.push({ kind: 'stop', fn: want.fn, id: handler.id, reason })
    if (!isUp(handler) || kept.includes(handler)) continue
    // What never served and is outdated already is waste; what did serve waits for its replacement.
    const superseded = reason === 'outdated' && !handler.proven
    if (replaced || superseded || AT_ONCE.has(reason)) {
      steps.push(...leave(want.fn, handler, reason))
    }
  }
  return steps
}

const AT_ONCE: ReadonlySet<LeaveReason> = new Set(['surplus', 'idle', 'blocked', 'used'])

function leaveReason(want: Desired, handler: ActualHandler): LeaveReason {
  if (handler.spent === true) return 'used'
  if (handler.suspect !== undefined) return handler.suspect
  if (handler.spec !== want.spec) return 'outdated'
  return want.replicas === 0 ? 'idle' : 'surplus'
}

/** What takes a handler one step further out, from wherever it is. */
function leave(fn: string, { id, phase }: ActualHandler, reason: LeaveReason): Step[] {
  if (phase === 'draining' || phase === 'stopping' || phase === 'pausing') return []
  if (phase === 'serving') return [{ kind: 'drain', fn, id, reason }]
  const done = phase === 'drained' || phase === 'dead'
  return [{ kind: 'stop', fn, id, reason: done ? phase : reason }]
}

/** It finishes calls, and there are none that it could still finish. */
function isStuck({ phase, spent, suspect }: ActualHandler): boolean {
  return (
    phase === 'draining' && (suspect === 'blocked' || (spent === true && suspect === 'overrun'))
  )
}

function isUp({ phase }: ActualHandler): boolean {
  return phase === 'found' || phase === 'starting' || phase === 'ready' || phase === 'serving'
}

function isUsable(handler: ActualHandler): boolean {
  return isUp(handler) && handler.spent !== true
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
