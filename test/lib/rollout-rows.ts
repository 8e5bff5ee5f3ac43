import type { NodeFact } from '#controller/rollout/index.ts'
import type { RolloutNodeRow, RolloutRow } from '#controller/store/index.ts'
import { reportOf } from './heartbeat.ts'
import { settingsOf } from './settings.ts'

/** What the rollout planner is given, in tables: a rollout of `sieve` from R1 to R2. */
export const R2 = 'r2-22222222'
export const R1 = 'r1-11111111'
const settings = settingsOf()
export const previous = { release: R1, settings }

/** A fact that says: nothing has happened yet. */
export const fact = (different: Partial<NodeFact> = {}): NodeFact => ({
  enrolled: true,
  presence: 'online',
  sentGeneration: 0,
  acceptedGeneration: 0,
  reportGeneration: 0,
  ...different,
})
export const kept = (different: Partial<NodeFact> = {}): NodeFact =>
  fact({
    issuedGeneration: 5,
    sentGeneration: 5,
    acceptedGeneration: 5,
    reportGeneration: 5,
    ...different,
  })
export const ready = kept({ report: reportOf('sieve', R2) })
export const failed = (code: string): NodeFact =>
  kept({
    report: reportOf('sieve', R2, {
      state: 'failed',
      serving: [],
      reason: { code, message: 'no' },
    }),
  })

export const node = (name: string, different: Partial<RolloutNodeRow> = {}): RolloutNodeRow => ({
  node: name,
  state: 'pending',
  sinceMs: 40_000,
  ...different,
})
export const rollout = (
  nodes: readonly RolloutNodeRow[],
  different: Partial<RolloutRow> = {},
): RolloutRow => ({
  id: 'ro',
  function: 'sieve',
  release: R2,
  selector: '*',
  settings,
  state: 'rolling',
  createdAtMs: 40_000,
  deadlineAtMs: 100_000,
  nodes,
  ...different,
})
