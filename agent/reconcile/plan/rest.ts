import type { ActualFunction, ActualHandler, Desired, PauseReason, Step } from '../model.ts'

/** What becomes of the handlers of a wanted function that take no calls any more. */
export interface Rest {
  /** Paused or drained handlers that are wanted again: they stay. */
  readonly resumed: ReadonlySet<string>
  /** Paused handlers whose memory is needed. */
  readonly giveUp: ReadonlySet<string>
}

/**
 * Removes what has ended, pauses what may be wanted again, and gives up what is not any longer: of each release at most one
 * handler is paused, and of the older releases only the newest.
 */
export function planRest(
  want: Desired,
  { fn, handlers }: ActualFunction,
  { resumed, giveUp }: Rest,
  nowMs: number,
): Step[] {
  const steps: Step[] = []
  const resting = handlers.filter(({ phase }) => phase === 'pausing' || phase === 'paused')
  const specs = new Set(resting.map(({ spec }) => spec))
  for (const handler of handlers) {
    const { id, phase, spec } = handler
    if (phase === 'dead') steps.push({ kind: 'stop', fn, id, reason: 'dead' })
    if (phase !== 'drained' || resumed.has(id)) continue
    const reason = specs.has(spec) ? undefined : pauseReason(want, handler)
    if (reason === undefined) {
      steps.push({ kind: 'stop', fn, id, reason: 'drained' })
    } else {
      steps.push({ kind: 'pause', fn, id, reason })
      specs.add(spec)
    }
  }
  const kept = newestOld(want, [...resting, ...pausedNow(handlers, steps)])
  for (const { id, phase, spec, pausedUntilMs = 0 } of handlers) {
    if (phase !== 'paused' || resumed.has(id)) continue
    const stop = (reason: 'memory' | 'expired' | 'superseded'): void => {
      steps.push({ kind: 'stop', fn, id, reason })
    }
    if (giveUp.has(id)) stop('memory')
    else if (nowMs >= pausedUntilMs) stop('expired')
    else if (spec !== want.spec && id !== kept) stop('superseded')
  }
  return steps
}

function pauseReason(want: Desired, handler: ActualHandler): PauseReason | undefined {
  if (want.spec === undefined || !isReusable(handler)) return undefined
  if (handler.spec !== want.spec) return want.keeps ? 'kept' : undefined
  return want.sleeps && want.replicas === 0 ? 'idle' : undefined
}

/** A drained handler that is as good as on the day it served. */
export function isReusable({ pausable, proven, spent, suspect }: ActualHandler): boolean {
  return pausable === true && proven && spent !== true && suspect === undefined
}

function pausedNow(handlers: readonly ActualHandler[], steps: readonly Step[]): ActualHandler[] {
  const ids = new Set(steps.flatMap((step) => (step.kind === 'pause' ? [step.id] : [])))
  return handlers.filter(({ id }) => ids.has(id))
}

/** Of another release than the wanted one: the one that is paused last. Those on their way there have no time yet. */
function newestOld(want: Desired, resting: readonly ActualHandler[]): string | undefined {
  const old = resting.filter(({ spec }) => spec !== want.spec)
  return old.toSorted((a, b) => untilMs(b) - untilMs(a))[0]?.id
}

function untilMs({ pausedUntilMs = Number.POSITIVE_INFINITY }: ActualHandler): number {
  return pausedUntilMs
}
