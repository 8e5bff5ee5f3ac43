/**
 * The controller's HTTP API: one plugin per resource, faults as answers, OpenAPI, the event stream.
 * Depends on: catalogue, fleet, rollout, store, events, shared.
 * Used by: controller/main.ts.
 */
export { ensureApiToken } from './auth.ts'
export { describeApi } from './openapi.ts'
export { buildApi, startApi } from './server.ts'
export type { ApiOptions, ApiServer } from './server.ts'
export type { ApiServices } from './services.ts'
