import type { NodeView } from '#shared/schemas/api.ts'
import type { NodeCommandRow, NodeRow } from '../store/index.ts'
import type { NodeLife } from './liveness.ts'

/** A node as facts: what SQL, its messages and its dispatcher say. */
export interface NodeFacts {
  readonly row: NodeRow
  readonly command: NodeCommandRow | undefined
  readonly life: NodeLife | undefined
  readonly presence: 'online' | 'offline' | 'unknown'
  readonly sentGeneration: number
}

/** What people are told of a node. */
export function viewOf({ row, command, life }: NodeFacts): NodeView {
  return {
    id: row.id,
    labels: row.labels,
    arch: row.arch,
    online: life?.online === true,
    lastSeenMs: Math.max(row.lastSeenMs, life?.lastSeenMs ?? 0),
    generation: command?.generation ?? 0,
    acceptedGeneration: command?.acceptedGeneration ?? 0,
    missedBeats: life?.missedBeats ?? 0,
    boots: life?.boots ?? 0,
    ...(row.inventory === undefined ? {} : { inventory: row.inventory }),
    ...(life?.heartbeat === undefined ? {} : { heartbeat: life.heartbeat }),
    ...(life?.refusal === undefined ? {} : { refusal: life.refusal }),
  }
}
