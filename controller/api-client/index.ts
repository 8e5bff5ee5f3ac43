/**
 * Typed client of the controller's HTTP API.
 *
 * Depends on: `#shared`. Used by: `controller/cli`, `controller/compat`.
 *
 * @module
 */
export { ApiClient } from './api-client.ts'
export type {
  ApiClientOptions,
  InvokeAnswer,
  InvokeRequest,
  LogsRequest,
  ReleaseRequest,
  ReleaseSource,
  RolloutRequest,
} from './model.ts'
