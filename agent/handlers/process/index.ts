/**
 * Handlers as plain child processes, for a development machine without Docker: limits, but no isolation.
 * Depends on shared, ../engine.ts, /bin/sh and /proc. Used by agent/handlers/index.ts.
 */
export {
  PROCESS_ENGINE_WARNING,
  ProcessEngine,
  type ProcessEngineOptions,
} from './process-engine.ts'
export { pidsWithEnvironment } from './proc.ts'
