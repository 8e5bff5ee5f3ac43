/**
 * From an invocation to a handler and back: routing by name, admission, deadlines, and the frame protocol to the runners.
 * Depends on shared, typebox, node:net and node:stream.
 * Used by proxy/ (Invoker), fronts/ (between processes), handlers/ and reconcile/ (links, lanes), health/ (stats) and main.ts.
 */
export type { InvokeLog } from './background.ts'
export { prepareHead } from './frames/index.ts'
export { CallPort, RemoteInvoker } from './hop/index.ts'
export type { Lane, LaneCallbacks, LaneDemand, LaneSettings, LaneStats } from './lane/index.ts'
export { ChunkQueue, RunnerServer } from './link/index.ts'
export type {
  LinkEnd,
  LinkState,
  RunnerHello,
  RunnerInit,
  RunnerLink,
  RunnerLogLine,
  RunnerServerOptions,
} from './link/index.ts'
export type {
  Body,
  CallerListener,
  CallerSignal,
  HeaderList,
  Invocation,
  Invoker,
  PreparedHead,
  Protocol,
  Result,
} from './model.ts'
export { InvokeRouter } from './router.ts'
export type { InvokeRouterOptions } from './router.ts'
