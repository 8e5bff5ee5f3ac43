import type { ActualFunction, ActualHandler, Desired } from '../model.ts'
import { isReusable } from './rest.ts'

/** What fits into the memory of this host's functions. */
export interface Fit {
  /** With as many handlers as there is room for, at least the minimum. */
  readonly desired: readonly Desired[]
  /** Ids of paused handlers that have to go. */
  readonly giveUp: ReadonlySet<string>
  /** Left for warm spares. */
  readonly sparesMiB: number
  /** Functions that get fewer handlers than their calls need. */
  readonly limited: ReadonlySet<string>
}

/**
 * Shares the budget out, by the handlers' memory limits: first what runs and the minimum of every function (those start
 * even above the budget: the operator has asked for them), then handlers beyond the minimum, one function after the other,
 * then paused ones, at last warm spares. Pure.
 */
export function fitMemory(
  desired: readonly Desired[],
  functions: readonly ActualFunction[],
  budgetMiB: number,
): Fit {
  const known = new Map(functions.map((have) => [have.fn, have]))
  const wishes = desired
    .toSorted((a, b) => (a.fn < b.fn ? -1 : 1))
    .map((want) => wishOf(want, known.get(want.fn)?.handlers ?? []))
  const handlers = functions.flatMap((have) => have.handlers)
  const resumed = new Set(wishes.flatMap(({ resumable }) => resumable))
  const paused = handlers.filter((one) => one.phase === 'paused' && !resumed.has(one.id))
  const usedMiB = sum(handlers.map(({ memoryMiB }) => memoryMiB))
  const mustMiB = sum(wishes.map(({ want, must }) => must * want.memoryMiB))
  const extraMiB = sum(wishes.map(({ want, extra }) => extra * want.memoryMiB))
  let freeMiB = budgetMiB - usedMiB - mustMiB

  const giveUp = new Set<string>()
  // The one that has been paused longest is missed least.
  for (const one of paused.toSorted(byPausedUntil)) {
    if (freeMiB >= extraMiB) break
    giveUp.add(one.id)
    freeMiB += one.memoryMiB
  }
  const limited = new Set<string>()
  const fitted: Desired[] = []
  for (const { want, extra } of wishes) {
    const granted = Math.min(extra, Math.max(0, Math.floor(freeMiB / want.memoryMiB)))
    freeMiB -= granted * want.memoryMiB
    fitted.push({ ...want, replicas: want.replicas - (extra - granted) })
    if (granted < extra) limited.add(want.fn)
  }
  return { desired: fitted, giveUp, sparesMiB: Math.max(0, freeMiB), limited }
}

interface Wish {
  readonly want: Desired
  /** Starts up to its minimum, and beyond. */
  readonly must: number
  readonly extra: number
  /** Ids of handlers that rest and are used in place of starts: their memory is counted already. */
  readonly resumable: readonly string[]
}

function wishOf(want: Desired, handlers: readonly ActualHandler[]): Wish {
  if (want.spec === undefined) return { want, must: 0, extra: 0, resumable: [] }
  const current = handlers.filter(({ spec }) => spec === want.spec)
  const running = current.filter(isRunning).length
  // They come back as soon as they are paused to the end, and nothing is started in their place.
  const pausing = current.filter(({ phase }) => phase === 'pausing').length
  const resumable = current
    .filter((one) => one.phase === 'paused' || (one.phase === 'drained' && isReusable(one)))
    .slice(0, Math.max(0, want.replicas - running))
    .map(({ id }) => id)
  const there = running + pausing + resumable.length
  const least = Math.min(want.replicas, Math.max(1, want.replicasMin))
  const must = Math.max(0, least - there)
  const extra = Math.max(0, want.replicas - there - must)
  return { want, must, extra, resumable }
}

const RUNNING: ReadonlySet<ActualHandler['phase']> = new Set([
  'found',
  'starting',
  'ready',
  'serving',
])

/** Those under suspicion are to be replaced, and go the sooner the fewer there is room for in their place. */
function isRunning({ phase, spent, suspect }: ActualHandler): boolean {
  return RUNNING.has(phase) && spent !== true && suspect === undefined
}

function byPausedUntil(a: ActualHandler, b: ActualHandler): number {
  return (a.pausedUntilMs ?? 0) - (b.pausedUntilMs ?? 0)
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
