/**
 * Where the truth is kept: SQL behind the narrow interface `Store`, with one implementation on node:sqlite.
 * Depends on: shared.
 * Used by: catalogue, fleet, rollout, api, controller/main.ts.
 */
export { SqliteStore } from './sqlite-store.ts'
export type {
  ArtifactRow,
  AssignmentFilter,
  AssignmentRow,
  FunctionRow,
  JoinTokenRow,
  NodeCommandRow,
  NodeRow,
  Previous,
  RolloutFilter,
  RolloutNodeRow,
  RolloutRow,
  Store,
  StoreReads,
  StoreTransaction,
  StoreWrites,
} from './model.ts'
