import type { SparePool, SpareWant } from '#agent/handlers/index.ts'
import type { FunctionState } from './function-state.ts'

/** Has the pool keep spares for what shall run here. @param memoryMiBMax - what is left for them */
export function tendSpares(
  pool: SparePool,
  functions: Iterable<FunctionState>,
  memoryMiBMax: number,
  calm: boolean,
): void {
  const wants: SpareWant[] = []
  for (const { assignment, identity } of functions) {
    // A network is made at the start or not at all.
    if (identity === undefined || assignment?.settings.network !== 'none') continue
    const { memoryMiB, cpus, pids } = assignment.settings
    wants.push({ runtime: assignment.runtime, identity, limits: { memoryMiB, cpus, pids } })
  }
  pool.tend({ wants, memoryMiBMax, calm })
}
