/**
 * Live connections to runners: listening, greeting, calls in flight with their bodies, pings, ends.
 * Depends on shared, invoke/frames, node:net and node:stream; knows no functions, queues or deadlines.
 * Used by invoke/lane, invoke/hop, handlers/ and the tests.
 */
export { BufferSender, StreamSender } from './body-sender.ts'
export { CallTable } from './call-table.ts'
export { ChunkQueue } from './chunk-queue.ts'
export { Connection } from './connection.ts'
export type { ConnectionOwner } from './connection.ts'
export { keep } from './keep.ts'
export { ResponseBody } from './response-body.ts'
export type { BodyFeed } from './response-body.ts'
export { RunnerLink } from './runner-link.ts'
export { RunnerServer } from './runner-server.ts'
export type { RunnerServerOptions } from './runner-server.ts'
export { Slot } from './slot.ts'
export type {
  LinkCall,
  LinkConnection,
  LinkEnd,
  LinkState,
  RunnerHello,
  RunnerInit,
  RunnerLogLine,
} from './types.ts'
