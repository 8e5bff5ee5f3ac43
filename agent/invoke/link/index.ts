/**
 * Live connections to runners: listening, greeting, calls in flight with their bodies, pings, ends.
 * Depends on shared, invoke/frames, node:net and node:stream; knows no functions, queues or deadlines.
 * Used by invoke/lane, handlers/ and the tests.
 */
export { RunnerLink } from './runner-link.ts'
export { RunnerServer } from './runner-server.ts'
export type { RunnerServerOptions } from './runner-server.ts'
export type {
  LinkCall,
  LinkConnection,
  LinkEnd,
  LinkState,
  RunnerHello,
  RunnerInit,
  RunnerLogLine,
} from './types.ts'
