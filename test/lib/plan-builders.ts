import type {
  Actual,
  ActualFunction,
  ActualHandler,
  Desired,
  Step,
} from '#agent/reconcile/index.ts'

/** What planner tests are written with: a wish, what is there of one function, and one row of a table. */

export const NOW_MS = 1_000

export function want(changes: Partial<Desired> = {}): Desired {
  const replicas = { replicas: 1, replicasMin: changes.replicas ?? 1 }
  const kinds = { memoryMiB: 1, sleeps: false, keeps: false }
  return { fn: 'f', spec: 'new', ...replicas, ...kinds, routing: 'r', ...changes }
}

export function have(
  handlers: readonly ActualHandler[],
  changes: Partial<ActualFunction> = {},
): ActualFunction {
  const common = { bundle: 'present', routing: 'r', failures: 0, retryAtMs: 0 } as const
  return { fn: 'f', handlers, ...common, ...changes }
}

export function handler(
  id: string,
  phase: ActualHandler['phase'],
  changes: Partial<ActualHandler> = {},
): ActualHandler {
  const proven = phase === 'serving' || phase === 'found'
  return { id, spec: 'new', phase, proven, memoryMiB: 1, ...changes }
}

export function node(functions: readonly ActualFunction[], changes: Partial<Actual> = {}): Actual {
  return { engine: 'present', functions, orphans: [], giveUp: new Set(), ...changes }
}

export function drained(id: string, changes: Partial<ActualHandler> = {}): ActualHandler {
  return handler(id, 'drained', { proven: true, pausable: true, ...changes })
}

export interface PlanRow {
  readonly name: string
  readonly desired: readonly Desired[]
  readonly actual: Actual
  /** `kind id reason`, without what is not there. */
  readonly steps: readonly string[]
}

export function text(step: Step): string {
  return [step.kind, 'id' in step ? step.id : '', step.reason]
    .filter((part) => part !== '')
    .join(' ')
}
