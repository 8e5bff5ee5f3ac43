/**
 * Rollouts: a pure planner (state, fleet facts, now) -> (state, effects), and the loop that owns every change.
 * Depends on: fleet, store, events, shared.
 * Used by: api, controller/main.ts.
 */
export { abortRollout, isOpen, PLAN_OPTIONS, planRollout } from './plan.ts'
export type { Effect, FleetFacts, NodeFact, Plan, PlanOptions } from './plan.ts'
export { Rollouts } from './rollouts.ts'
export type { RolloutRequest, RolloutsOptions } from './rollouts.ts'
