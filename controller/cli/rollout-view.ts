import type { Rollout, RolloutNode, RolloutNodeState, RolloutState } from '#shared/schemas/api.ts'
import { paint, type Output } from './output.ts'
import { durationText } from './table.ts'

const NODES_SHOWN_MAX = 20

/** Worst first. */
const ORDER: readonly RolloutNodeState[] = [
  'failed',
  'refused',
  'offline',
  'pending',
  'sent',
  'applying',
  'ready',
]

const NODE_COLOUR = {
  pending: 'gray',
  sent: 'cyan',
  applying: 'yellow',
  ready: 'green',
  failed: 'red',
  refused: 'red',
  offline: 'gray',
} as const satisfies Record<RolloutNodeState, string>

const STATE_COLOUR = {
  rolling: 'cyan',
  waiting: 'yellow',
  done: 'green',
  failed: 'red',
  aborted: 'red',
  'timed-out': 'red',
} as const satisfies Record<RolloutState, string>

/** A rollout as lines: one per node, worst first. `nowMs` gives ages; without it lines only change when a state does. */
export function rolloutLines(out: Output, rollout: Rollout, nowMs?: number): string[] {
  const nodes = rollout.nodes.toSorted(
    (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || (a.node < b.node ? -1 : 1),
  )
  const width = Math.max(0, ...nodes.map((node) => node.node.length))
  const shown = nodes.slice(0, NODES_SHOWN_MAX).map((node) => nodeLine(out, node, width, nowMs))
  const more = nodes.length - shown.length
  return more > 0 ? [...shown, `  and ${more} more`] : shown
}

function nodeLine(
  out: Output,
  { node, state, reason, sinceMs }: RolloutNode,
  width: number,
  nowMs: number | undefined,
): string {
  const age = nowMs === undefined ? '' : `  ${durationText(nowMs - sinceMs)}`
  const why = reason === undefined ? '' : `  ${reason.code}: ${reason.message.split('\n')[0]}`
  return `  ${node.padEnd(width)}  ${paint(out, NODE_COLOUR[state], state.padEnd(8))}${age}${why}`.trimEnd()
}

/** `done in 3.2 s: 2 of 2 nodes ready` */
export function rolloutSummary(out: Output, rollout: Rollout, nowMs: number): string {
  const ready = rollout.nodes.filter((node) => node.state === 'ready').length
  const nodes = rollout.nodes.length === 1 ? 'node' : 'nodes'
  const took = durationText((rollout.endedAtMs ?? nowMs) - rollout.createdAtMs)
  const reason = rollout.reason === undefined ? '' : ` (${rollout.reason})`
  const state = paint(out, STATE_COLOUR[rollout.state], rollout.state)
  return `${state} after ${took}: ${ready} of ${rollout.nodes.length} ${nodes} ready${reason}`
}
