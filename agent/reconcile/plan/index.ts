/**
 * What to do next: how many handlers a function gets, which of them fit into memory, and the steps. Pure.
 * Depends on reconcile/model and shared.
 * Used by reconcile/.
 */
export { fitMemory, type Fit } from './memory.ts'
export { plan } from './plan.ts'
export {
  ASLEEP,
  QUIET_MS,
  rescale,
  rescaleDueAtMs,
  scaleOf,
  type Demand,
  type Level,
  type Scale,
} from './scale.ts'
