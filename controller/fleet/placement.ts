import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import type { BundleArch } from '#shared/schemas/api.ts'
import type { NodeRow, StoreTransaction } from '../store/index.ts'
import { matches, parseSelector } from './selector.ts'

/** True when a bundle of this architecture runs on this node. */
export function archFits(bundle: BundleArch, node: Pick<NodeRow, 'arch'>): boolean {
  return bundle === 'any' || bundle === node.arch
}

/**
 * Gives nodes what the placements say: the selector, release and settings of each function's last done rollout.
 *
 * A node that has the function already keeps what it has, unless `move` says otherwise: then it gets the placement's.
 *
 * @returns nodes whose assignments have changed
 */
export async function applyPlacements(
  tx: StoreTransaction,
  nodes: readonly NodeRow[],
  options: { readonly fn?: string; readonly move?: boolean } = {},
): Promise<string[]> {
  const changed = new Set<string>()
  for (const { name, placement } of await tx.functions()) {
    if (placement === undefined || (options.fn !== undefined && options.fn !== name)) continue
    const release = await tx.release(name, placement.release)
    if (release === undefined) continue
    const selector = parseSelector(placement.selector)
    const has = new Map((await tx.assignments({ fn: name })).map((row) => [row.node, row.release]))
    for (const node of nodes) {
      const present = has.get(node.id)
      if (present === placement.release || (present !== undefined && options.move !== true))
        continue
      if (!matches(selector, node) || !archFits(release.arch, node)) continue
      if (present === undefined) await assertRoom(tx, node.id)
      const { settings } = placement
      await tx.putAssignment({ fn: name, node: node.id, release: release.id, settings })
      changed.add(node.id)
    }
  }
  return [...changed]
}

/** @throws Fault `CONFLICT` when the node's command cannot hold one more function */
export async function assertRoom(tx: StoreTransaction, node: string): Promise<void> {
  const count = (await tx.assignments({ node })).length
  if (count < LIMITS.functionsPerNodeMax) return
  throw new Fault('CONFLICT', `node ${node} has ${count} functions, the most a node can have`, {
    node,
  })
}
