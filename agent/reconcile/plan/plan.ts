import type { Actual, ActualFunction, Desired, Step } from '../model.ts'
import { planFunction, planRemoval } from './function.ts'

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
 * - A paused handler that fits is resumed before one is started.
 * - One drained handler of the release before is kept paused, one of a function that sleeps as well; see `planRest`.
 * - While a release that has never served fails, the one before it serves, and is started again when it has gone.
 */
export function plan(desired: readonly Desired[], actual: Actual, nowMs: number): Step[] {
  const wanted = new Map(desired.map((want) => [want.fn, want]))
  const known = new Map(actual.functions.map((have) => [have.fn, have]))
  const names = [...new Set([...wanted.keys(), ...known.keys()])].toSorted()
  const steps: Step[] = []
  for (const fn of names) {
    const have = known.get(fn) ?? unknownFunction(fn)
    const want = wanted.get(fn)
    const { giveUp } = actual
    steps.push(
      ...(want === undefined ? planRemoval(have) : planFunction(want, have, giveUp, nowMs)),
    )
  }
  for (const { id } of actual.orphans) steps.push({ kind: 'remove-orphan', id, reason: 'unknown' })
  return steps.filter((step) => isPossible(step, actual, known, nowMs))
}

const NEEDS_ENGINE: ReadonlySet<Step['kind']> = new Set([
  'start',
  'adopt',
  'stop',
  'pause',
  'resume',
  'remove-orphan',
])

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

function unknownFunction(fn: string): ActualFunction {
  return { fn, handlers: [], bundle: 'absent', routing: undefined, failures: 0, retryAtMs: 0 }
}
