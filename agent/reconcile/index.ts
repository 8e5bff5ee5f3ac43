/**
 * Brings the handlers on this node to the state the controller asked for, and keeps them there.
 * Depends on shared, agent/handlers (engines, bundles, handler life) and agent/invoke (lanes). Used by main.ts and health/.
 */
export { BACKOFF, backoffMs } from './backoff.ts'
export type { ReconcileLog } from './apply.ts'
export type { Actual, ActualFunction, ActualHandler, Desired, HandlerPhase, Step } from './model.ts'
export { plan } from './plan.ts'
export { Reconciler, type CloseOptions, type ReconcilerOptions } from './reconciler.ts'
export { survey, type Survey, type SurveyInput } from './survey.ts'
