import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import type { BundleArch, Placement } from '#shared/schemas/api.ts'
import type { AssignmentRow, FunctionRow, NodeRow, StoreTransaction } from '../store/index.ts'
import { matches, parseSelector } from './selector.ts'

/** True when a bundle of this architecture runs on this node. */
export function archFits(bundle: BundleArch, node: Pick<NodeRow, 'arch'>): boolean {
  return bundle === 'any' || bundle === node.arch
}

/** @throws Fault `REQUEST_INVALID` for a selector that is none, `NO_NODE_SELECTED` */
export function selectNodes(nodes: readonly NodeRow[], selectorText: string): NodeRow[] {
  const selector = parseSelector(selectorText)
  const selected = nodes.filter((node) => matches(selector, node))
  if (selected.length > 0) return selected
  throw new Fault('NO_NODE_SELECTED', `no node matches selector "${selectorText}"`, {
    selector: selectorText,
  })
}

/** A function that could not be given to a node, and why. */
export interface Unplaced {
  readonly fn: string
  readonly node: string
  readonly fault: Fault
}

export interface Placed {
  /** Nodes whose assignments have changed. */
  readonly changed: readonly string[]
  readonly unplaced: readonly Unplaced[]
}

/**
 * Gives nodes what the placements say: the selector, release and settings of each function's done rollouts, the last that
 * matches.
 *
 * A node that has the function already keeps what it has, unless `move` says otherwise: then it gets the placement's.
 */
export async function applyPlacements(
  tx: StoreTransaction,
  nodes: readonly NodeRow[],
  options: { readonly fn?: string; readonly move?: boolean } = {},
): Promise<Placed> {
  const changed = new Set<string>()
  const unplaced: Unplaced[] = []
  for (const { name, placements } of await tx.functions()) {
    if (placements.length === 0 || (options.fn !== undefined && options.fn !== name)) continue
    const candidates = await candidatesOf(tx, name, placements)
    const has = new Map((await tx.assignments({ fn: name })).map((row) => [row.node, row.release]))
    for (const node of nodes) {
      const present = has.get(node.id)
      if (present !== undefined && options.move !== true) continue
      const found = candidates.findLast(({ fits }) => fits(node))
      if (found === undefined || present === found.release) continue
      const { release, settings } = found
      const row = { fn: name, node: node.id, release, settings }
      const fault = await roomFault(tx, row)
      if (fault === undefined) {
        await tx.putAssignment(row)
        changed.add(node.id)
      } else {
        unplaced.push({ fn: name, node: node.id, fault })
      }
    }
  }
  return { changed: [...changed], unplaced }
}

interface Candidate extends Placement {
  readonly fits: (node: NodeRow) => boolean
}

async function candidatesOf(
  tx: StoreTransaction,
  fn: string,
  placements: readonly Placement[],
): Promise<Candidate[]> {
  const candidates: Candidate[] = []
  for (const placement of placements) {
    const release = await tx.release(fn, placement.release)
    if (release === undefined) continue
    const selector = parseSelector(placement.selector)
    const fits = (node: NodeRow): boolean => matches(selector, node) && archFits(release.arch, node)
    candidates.push({ ...placement, fits })
  }
  return candidates
}

/**
 * The placements with one more: it takes the place of those with the same selector, or of all when it selects every node;
 * those of another architecture stay, because their nodes do.
 */
export async function withPlacement(
  tx: StoreTransaction,
  { name, placements }: FunctionRow,
  added: Placement,
): Promise<Placement[]> {
  const arch = (await tx.release(name, added.release))?.arch ?? 'any'
  const kept: Placement[] = []
  for (const placement of placements) {
    const other = (await tx.release(name, placement.release))?.arch
    const covered = added.selector === '*' || added.selector === placement.selector
    const sameNodes = arch === 'any' || arch === other
    if (other !== undefined && !(covered && sameNodes)) kept.push(placement)
  }
  return [...kept, added].slice(-LIMITS.placementsMax)
}

/** Beside its settings: names, digest and what JSON needs. */
const ASSIGNMENT_BYTES = 1_024

/** Why the node's command has no room for this assignment (in place of the one it has of the same function). */
export async function roomFault(
  tx: StoreTransaction,
  { fn, node, settings }: AssignmentRow,
): Promise<Fault | undefined> {
  const others = (await tx.assignments({ node })).filter((row) => row.fn !== fn)
  const all = [...others.map((row) => row.settings), settings]
  if (all.length > LIMITS.functionsPerNodeMax) {
    return new Fault(
      'CONFLICT',
      `node ${node} has ${others.length} functions, the most a node can have`,
      { node },
    )
  }
  const bytes = all.reduce(
    (sum, each) => sum + Buffer.byteLength(JSON.stringify(each)) + ASSIGNMENT_BYTES,
    0,
  )
  if (bytes <= LIMITS.commandBytesMax) return undefined
  return new Fault(
    'CONFLICT',
    `with ${fn} the command of node ${node} would have about ${bytes} bytes, at most ${LIMITS.commandBytesMax} are allowed: make the environments of its functions smaller, or remove some`,
    { node, bytes },
  )
}
