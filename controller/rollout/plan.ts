import { FAULTS, isFaultCode } from '#shared/fault.ts'
import type { RolloutNodeState, RolloutState } from '#shared/schemas/api.ts'
import type { FunctionReport, Reason } from '#shared/schemas/health.ts'
import type { RolloutNodeRow, RolloutRow } from '../store/index.ts'

/**
 * Strategy `all`: every selected node at once.
 *
 * ```
 * rolling <-> waiting          (waiting: only offline nodes are missing)
 *    |           |
 *    +-----------+--> done | failed | timed-out | aborted
 * ```
 */

/** One selected node as the planner sees it. */
export interface NodeFact {
  /** False once the node was deleted: it no longer counts. */
  readonly enrolled: boolean
  /** `unknown`: this controller has not listened long enough to call it offline. */
  readonly presence: 'online' | 'offline' | 'unknown'
  /** Set when this node cannot run the release at all. */
  readonly unfit?: Reason
  /** Generation of the node's command, when that carries the node's present assignments. */
  readonly issuedGeneration?: number
  readonly sentGeneration: number
  readonly acceptedGeneration: number
  /** What the node said when it last refused a command. */
  readonly refusal?: Reason & { readonly generation?: number }
  /** The node's last word on this function, and the generation it spoke of. */
  readonly report?: FunctionReport
  readonly reportGeneration: number
}

export type FleetFacts = ReadonlyMap<string, NodeFact>

export interface PlanOptions {
  /** How long a node may say `failed` or `refused` before the rollout has failed. */
  readonly graceMs: number
  /** The same for reasons that trying again does not change (`retry: false` in the fault table). */
  readonly finalGraceMs: number
}

export const PLAN_OPTIONS: PlanOptions = { graceMs: 10_000, finalGraceMs: 1_500 }

export type Effect =
  /** Bring the node its command. */
  | { readonly kind: 'send'; readonly node: string }
  /** Make selector, release and settings a placement of the function. */
  | { readonly kind: 'place' }
  /** Give these nodes back what they had: the rollout has ended before it reached them, or they could not do it. */
  | { readonly kind: 'return'; readonly nodes: readonly RolloutNodeRow[] }
  /** Look again at this time, whatever happens. */
  | { readonly kind: 'wake'; readonly atMs: number }

export interface Plan {
  readonly next: RolloutRow
  readonly effects: readonly Effect[]
}

const REASONS_SHOWN = 5

/** True while a rollout can still change. */
export function isOpen(state: RolloutState): boolean {
  return state === 'rolling' || state === 'waiting'
}

/** The rollout's next state. Pure and total; a rollout that has ended stays as it is. */
export function planRollout(
  rollout: RolloutRow,
  facts: FleetFacts,
  nowMs: number,
  options: PlanOptions = PLAN_OPTIONS,
): Plan {
  if (!isOpen(rollout.state)) return { next: rollout, effects: [] }
  const nodes = rollout.nodes
    .filter(({ node }) => facts.get(node)?.enrolled === true)
    .map((node) => nextNode(rollout, node, facts.get(node.node), nowMs))
  const { state, reason } = nextState({ ...rollout, nodes }, nowMs, options)
  const { reason: _before, ...rest } = rollout
  const next: RolloutRow = {
    ...rest,
    nodes,
    state,
    ...(reason === undefined ? {} : { reason }),
    ...(isOpen(state) ? {} : { endedAtMs: nowMs }),
  }
  return { next, effects: effectsOf(next, facts, nowMs, options) }
}

/** Ends an open rollout now. Nodes that it has not reached get back what they had. */
export function abortRollout(
  rollout: RolloutRow,
  facts: FleetFacts,
  reason: string,
  nowMs: number,
): Plan {
  if (!isOpen(rollout.state)) return { next: rollout, effects: [] }
  const nodes = rollout.nodes.filter((node) => !isReached(rollout, node, facts.get(node.node)))
  const next: RolloutRow = { ...rollout, state: 'aborted', reason, endedAtMs: nowMs }
  return { next, effects: nodes.length === 0 ? [] : [{ kind: 'return', nodes }] }
}

function isReached(rollout: RolloutRow, node: RolloutNodeRow, fact: NodeFact | undefined): boolean {
  if (['applying', 'ready', 'failed'].includes(node.state)) return true
  if (fact === undefined) return false
  const generation = node.generation ?? fact.issuedGeneration
  if (generation !== undefined && fact.acceptedGeneration >= generation) return true
  return fact.report?.release === rollout.release
}

function nextNode(
  rollout: RolloutRow,
  before: RolloutNodeRow,
  fact: NodeFact | undefined,
  nowMs: number,
): RolloutNodeRow {
  if (fact === undefined) return before
  const generation = before.generation ?? fact.issuedGeneration
  const { state, reason } = observe(rollout, before, fact, generation)
  const trouble = state === 'failed' || state === 'refused'
  // A node that tries again says `applying` in between; the trouble is over when it is ready.
  const troubleSinceMs =
    state === 'ready' ? undefined : (before.troubleSinceMs ?? (trouble ? nowMs : undefined))
  return {
    node: before.node,
    state,
    sinceMs: state === before.state ? before.sinceMs : nowMs,
    ...(reason === undefined ? {} : { reason }),
    ...(before.previous === undefined ? {} : { previous: before.previous }),
    ...(generation === undefined ? {} : { generation }),
    ...(troubleSinceMs === undefined ? {} : { troubleSinceMs }),
  }
}

interface Observed {
  readonly state: RolloutNodeState
  readonly reason?: Reason | undefined
}

function observe(
  { release }: RolloutRow,
  before: RolloutNodeRow,
  fact: NodeFact,
  generation: number | undefined,
): Observed {
  if (fact.unfit !== undefined) return { state: 'refused', reason: fact.unfit }
  if (fact.presence === 'offline') {
    // It has what it should have; that it is away is no business of this rollout.
    return { state: before.state === 'ready' ? 'ready' : 'offline' }
  }
  if (generation === undefined) return { state: 'pending' }
  if (fact.acceptedGeneration < generation) {
    const refusal = refusalOf(fact, generation)
    if (refusal !== undefined) return { state: 'refused', reason: refusal }
    return { state: fact.sentGeneration >= generation ? 'sent' : 'pending' }
  }
  const { report } = fact
  if (report === undefined || report.release !== release || fact.reportGeneration < generation) {
    return { state: before.state === 'ready' ? 'ready' : 'applying' }
  }
  if (report.state === 'ready') return { state: 'ready' }
  if (report.state === 'failed') return { state: 'failed', reason: report.reason }
  return { state: 'applying', reason: report.reason }
}

/** What the node said of an earlier command says nothing about this one. */
function refusalOf({ refusal }: NodeFact, generation: number): Reason | undefined {
  if (refusal === undefined) return undefined
  if (refusal.generation !== undefined && refusal.generation < generation) return undefined
  return { code: refusal.code, message: refusal.message }
}

function nextState(
  rollout: RolloutRow,
  nowMs: number,
  options: PlanOptions,
): { state: RolloutState; reason?: string } {
  const { nodes } = rollout
  if (nodes.length === 0) return { state: 'aborted', reason: 'all its nodes were deleted' }
  const ready = nodes.filter(({ state }) => state === 'ready')
  if (ready.length === nodes.length) return { state: 'done' }
  const over = nowMs >= rollout.deadlineAtMs
  const troubled = nodes.filter(({ state }) => state === 'failed' || state === 'refused')
  if (troubled.some((node) => over || nowMs >= troubleEndsMs(node, options))) {
    return { state: 'failed', reason: listOf(troubled) }
  }
  const missing = nodes.filter(({ state }) => state !== 'ready')
  const offline = missing.filter(({ state }) => state === 'offline')
  if (offline.length < missing.length) {
    if (!over) return { state: 'rolling' }
    return { state: 'timed-out', reason: `not ready in time: ${listOf(missing)}` }
  }
  const names = `offline: ${listOf(offline)}`
  if (!over) return { state: 'waiting', reason: names }
  // Offline is normal: those nodes have their assignment and get it when they return.
  if (ready.length > 0) return { state: 'done', reason: `${names}; they get it when they return` }
  return { state: 'timed-out', reason: `${names}; they get it when they return` }
}

function effectsOf(
  rollout: RolloutRow,
  facts: FleetFacts,
  nowMs: number,
  options: PlanOptions,
): Effect[] {
  if (rollout.state === 'done') return [{ kind: 'place' }]
  if (rollout.state === 'failed') return undo(rollout)
  if (!isOpen(rollout.state)) return []
  const effects: Effect[] = []
  let atMs = rollout.deadlineAtMs
  for (const node of rollout.nodes) {
    if (node.state === 'pending' && facts.get(node.node)?.presence !== 'offline') {
      effects.push({ kind: 'send', node: node.node })
    }
    if (node.state === 'failed' || node.state === 'refused') {
      atMs = Math.min(atMs, troubleEndsMs(node, options))
    }
  }
  effects.push({ kind: 'wake', atMs: Math.max(atMs, nowMs) })
  return effects
}

/** A node that has something to go back to must not keep what does not work, and meet it again at its next start. */
function undo({ nodes }: RolloutRow): Effect[] {
  const back = nodes.filter(({ state, previous }) => state !== 'ready' && previous !== undefined)
  return back.length === 0 ? [] : [{ kind: 'return', nodes: back }]
}

function troubleEndsMs({ troubleSinceMs, reason, sinceMs }: RolloutNodeRow, options: PlanOptions) {
  const final = reason !== undefined && isFaultCode(reason.code) && !FAULTS[reason.code].retry
  return (troubleSinceMs ?? sinceMs) + (final ? options.finalGraceMs : options.graceMs)
}

function listOf(nodes: readonly RolloutNodeRow[]): string {
  const shown = nodes.slice(0, REASONS_SHOWN).map(({ node, state, reason }) => {
    if (reason !== undefined) return `${node}: ${reason.code}: ${reason.message}`
    return state === 'offline' ? node : `${node} is ${state}`
  })
  const more = nodes.length - shown.length
  return shown.join('; ') + (more > 0 ? `; and ${more} more` : '')
}
