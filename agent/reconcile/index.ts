/**
 * Brings the handlers on this node to the state the controller asked for, and keeps them there.
 * Depends on shared, agent/handlers (engines, bundles, handler life) and agent/invoke (lanes). Used by main.ts and health/.
 */
export { BACKOFF, backoffMs } from './backoff.ts'
export type { ReconcileLog } from './apply.ts'
export type { Actual, ActualFunction, ActualHandler, Desired, HandlerPhase, Step } from './model.ts'
export {
  ASLEEP,
  fitMemory,
  plan,
  QUIET_MS,
  rescale,
  rescaleDueAtMs,
  scaleOf,
  type Demand,
  type Fit,
  type Level,
  type Scale,
} from './plan/index.ts'
export type { CloseOptions, ReconcilerOptions } from './options.ts'
export { Reconciler } from './reconciler.ts'
export { survey, type Survey, type SurveyInput } from './survey.ts'
