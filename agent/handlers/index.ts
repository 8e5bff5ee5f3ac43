/**
 * Handlers: where a function's release runs. Engines (docker, process), bundles on disk, and the life of one handler.
 * Depends on shared, agent/invoke (sockets to the runners). Used by reconcile/, health/ and main.ts.
 */
export type {
  Engine,
  HandlerExit,
  HandlerLimits,
  HandlerSpec,
  ObservedHandler,
  SpareSpec,
} from './engine.ts'
export { DockerEngine, type DockerEngineOptions } from './docker/index.ts'
export {
  PROCESS_ENGINE_WARNING,
  ProcessEngine,
  type ProcessEngineOptions,
} from './process/index.ts'
export { BundleStore, type ArtifactSource, type BundleStoreOptions } from './bundles/index.ts'
export { ImagesFile, type ImagesSource } from './images-file.ts'
export { Handler, type HandlerOptions } from './handler.ts'
export { HANDLER_TIMEOUTS } from './handler-state.ts'
export type { HandlerState, HandlerTimeouts, HandlerTimings } from './handler-state.ts'
export { SparePool } from './spare-pool.ts'
export type { SpareNeed, SpareLog, SparePoolOptions, SpareWant } from './spare-pool.ts'
export type { Spare } from './spare.ts'
export { HandlerFolders, newHandlerId, newRecord, specDigestOf, specOf } from './handler-record.ts'
export type { HandlerRecord } from './handler-record.ts'
