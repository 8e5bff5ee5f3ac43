import { Compile } from 'typebox/compile'
import { Value } from 'typebox/value'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import type { Release, Rollout } from '#shared/schemas/api.ts'
import { FunctionSettings } from '#shared/schemas/command.ts'
import { applyPlacements, archFits, roomFault, withPlacement, type Placed } from '../fleet/index.ts'
import type {
  FunctionRow,
  NodeRow,
  RolloutNodeRow,
  RolloutRow,
  Store,
  StoreTransaction,
} from '../store/index.ts'
import type { Effect } from './plan.ts'

const settingsValidator = Compile(FunctionSettings)
/** Of a function with no handler that is always there, when nothing is said. */
const IDLE_MS = 300_000

/** @throws Fault `FUNCTION_UNKNOWN` */
export async function functionOf(tx: Pick<Store, 'function'>, name: string): Promise<FunctionRow> {
  const row = await tx.function(name)
  if (row === undefined) {
    throw new Fault('FUNCTION_UNKNOWN', `there is no function ${name}`, { fn: name })
  }
  return row
}

/** The release with this id, or the newest. @throws Fault `RELEASE_UNKNOWN` */
export async function releaseOf(
  tx: StoreTransaction,
  fn: string,
  release: string | undefined,
): Promise<Release> {
  const found = release === undefined ? await tx.newestRelease(fn) : await tx.release(fn, release)
  if (found !== undefined) return found
  throw new Fault('RELEASE_UNKNOWN', `function ${fn} has no release ${release ?? 'yet'}`, { fn })
}

/**
 * Writes the new assignments; a node of another architecture gets none and is refused by the plan.
 *
 * @throws Fault `CONFLICT` when a node's command has no room for it
 */
export async function assign(
  tx: StoreTransaction,
  nodes: readonly NodeRow[],
  what: Pick<Release, 'function' | 'id' | 'arch'> & { readonly settings: FunctionSettings },
  nowMs: number,
): Promise<RolloutNodeRow[]> {
  const rows: RolloutNodeRow[] = []
  for (const node of nodes) {
    const [before] = await tx.assignments({ fn: what.function, node: node.id })
    rows.push({
      node: node.id,
      state: 'pending',
      sinceMs: nowMs,
      ...(before === undefined
        ? {}
        : { previous: { release: before.release, settings: before.settings } }),
    })
    if (!archFits(what.arch, node)) continue
    const { function: fn, id: release, settings } = what
    const row = { fn, node: node.id, release, settings }
    const fault = await roomFault(tx, row)
    if (fault !== undefined) throw fault
    await tx.putAssignment(row)
  }
  return rows
}

/** Does what a plan's effect means in SQL. */
export async function applyInSql(
  tx: StoreTransaction,
  rollout: RolloutRow,
  effect: Effect,
): Promise<Placed> {
  if (effect.kind === 'place') return place(tx, rollout)
  const changed = effect.kind === 'return' ? await giveBack(tx, rollout, effect.nodes) : []
  return { changed, unplaced: [] }
}

async function place(tx: StoreTransaction, rollout: RolloutRow): Promise<Placed> {
  const { function: fn, release, selector, settings } = rollout
  const row = await tx.function(fn)
  if (row === undefined) return { changed: [], unplaced: [] }
  const placements = await withPlacement(tx, row, { selector, release, settings })
  await tx.putFunction({ ...row, placements })
  // Nodes that have joined meanwhile, perhaps with the placement before this one.
  const own = new Set(rollout.nodes.map(({ node }) => node))
  const others = (await tx.nodes()).filter(({ id }) => !own.has(id))
  return applyPlacements(tx, others, { fn, move: true })
}

async function giveBack(
  tx: StoreTransaction,
  { function: fn, release }: RolloutRow,
  nodes: readonly RolloutNodeRow[],
): Promise<string[]> {
  const changed: string[] = []
  for (const { node, previous } of nodes) {
    const [present] = await tx.assignments({ fn, node })
    if (present?.release !== release) continue
    if (previous === undefined) await tx.deleteAssignments({ fn, node })
    else await tx.putAssignment({ fn, node, ...previous })
    changed.push(node)
  }
  return changed
}

/**
 * Given over inherited over defaults; a function that may have no handler is put to sleep some time or other.
 *
 * @throws Fault `REQUEST_INVALID` that names the setting
 */
export function mergeSettings(
  { settings: inherited }: FunctionRow,
  given: Partial<FunctionSettings> | undefined,
): FunctionSettings {
  const merged: unknown = Value.Default(FunctionSettings, { ...inherited, ...given })
  if (!settingsValidator.Check(merged)) {
    const problem = settingsValidator.Errors(merged)[0]
    const field = `settings${(problem?.instancePath ?? '').replaceAll('/', '.')}`
    throw new Fault('REQUEST_INVALID', `${field} ${problem?.message ?? 'is invalid'}`, { field })
  }
  const { replicas, replicasMax } = merged
  if (replicasMax !== undefined && replicasMax < replicas) {
    throw new Fault(
      'REQUEST_INVALID',
      `settings.replicasMax is ${replicasMax}, it must be at least ${replicas}, as settings.replicas is`,
      { field: 'settings.replicasMax' },
    )
  }
  const envBytes = Object.entries(merged.env).reduce(
    (sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value),
    0,
  )
  if (envBytes > LIMITS.envBytesMax) {
    throw new Fault(
      'REQUEST_INVALID',
      `settings.env has ${envBytes} bytes, at most ${LIMITS.envBytesMax} are allowed`,
      { field: 'settings.env' },
    )
  }
  return replicas === 0 ? { idleMs: IDLE_MS, ...merged } : merged
}

/** Without what only the planner needs. */
export function publicRollout(row: RolloutRow): Rollout {
  return {
    ...row,
    nodes: row.nodes.map(({ node, state, reason, sinceMs }) => ({
      node,
      state,
      sinceMs,
      ...(reason === undefined ? {} : { reason: { code: reason.code, message: reason.message } }),
    })),
  }
}
