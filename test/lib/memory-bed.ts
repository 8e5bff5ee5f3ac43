import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { ReconcilerOptions } from '#agent/reconcile/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Assignment, FunctionSettings } from '#shared/schemas/command.ts'
import type { FunctionReport } from '#shared/schemas/health.ts'
import { eventually } from './eventually.ts'
import { MemoryEngine } from './memory-engine.ts'
import {
  answering,
  assignmentOf,
  call,
  reported,
  startNode,
  type ReconcileNode,
} from './reconcile-scope.ts'

/** So long a handler has to serve well until earlier failures are forgotten. */
export const STABLE_MS = 10_000

export interface Bed extends ReconcileNode {
  readonly engine: MemoryEngine
}

/** A node that wants nothing yet. */
export async function bed(folder: string, changes: Partial<ReconcilerOptions> = {}): Promise<Bed> {
  const engine = new MemoryEngine()
  const place = { kind: 'process', folder, installation: 'memory' } as const
  return { ...(await startNode(place, { engine, ...changes })), engine }
}

/** Wants `f`, which answers `ok`. */
export async function deploy(
  node: Bed,
  settings: Partial<FunctionSettings> = {},
): Promise<Assignment> {
  const assignment = await assignmentOf(node.source, 'f', answering('ok'), settings)
  node.reconciler.setDesired([assignment])
  await reported(node, 'f', 'ready')
  return assignment
}

export function reportOf(node: Bed): FunctionReport {
  const [report] = node.reconciler.report()
  assert.ok(report !== undefined)
  return report
}

/** `ok`, or the fault's code. */
export function outcome(node: Bed): Promise<string> {
  return call(node.router, 'f').catch((error: unknown) => Fault.from(error).code)
}

export async function asleep(node: Bed): Promise<void> {
  await eventually(() => reportOf(node).handlers.paused === 1)
}

/** The monotonic clock, which a test sets forward. */
export function clock(context: TestContext): (ms: number) => void {
  const now = performance.now.bind(performance)
  let aheadMs = 0
  context.mock.method(performance, 'now', () => now() + aheadMs)
  return (ms) => {
    aheadMs += ms
  }
}
