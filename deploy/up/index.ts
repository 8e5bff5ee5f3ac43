/**
 * `npm start`: one installation (nats-server, controller, one agent, samples) kept running until it is told to stop.
 *
 * Depends on: `#shared`, `#controller/signing`, `deploy/bootstrap`; starts `controller/main.ts` and `agent/main.ts`.
 * Used by: `deploy/main.ts`.
 *
 * @module
 */
export { up } from './up.ts'
export type { UpOptions } from './up.ts'
export { PartFailure } from './part.ts'
export { stopRunning } from './lock.ts'
