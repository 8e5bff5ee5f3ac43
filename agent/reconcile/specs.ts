import type { Engine } from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import type { FunctionState } from './function-state.ts'

/** Settles which handlers each function wants, from what the engine would make them of now: images may have come, gone or changed. */
export async function resolveSpecs(
  engine: Engine,
  functions: Iterable<FunctionState>,
): Promise<void> {
  const states = [...functions]
  const identities = new Map<Runtime, string | Fault>()
  for (const { assignment } of states) {
    if (assignment === undefined || identities.has(assignment.runtime)) continue
    const { runtime } = assignment
    identities.set(runtime, await engine.identity(runtime).catch((error) => Fault.from(error)))
  }
  for (const state of states) state.resolve(engine.kind, identities)
}
