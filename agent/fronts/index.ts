/**
 * The doors of the agent: HTTP, CoAP and gRPC, in the agent's own process or in workers of their own.
 *
 * With workers the agent keeps all that decides (router, admission, deadlines, faults, counts) and gives away what a call costs most:
 * sockets, parsers, encoders. `worker.ts` is the program of a worker, `agent-worker.mjs` in a release.
 *
 * Depends on shared, invoke/, proxy/, memory/, sockets/.
 * Used by agent.ts and doors.ts.
 */
export { OwnFronts } from './own-fronts.ts'
export type { Fronts, FrontPorts, FrontsOptions } from './model.ts'
export { WorkerFronts } from './worker-fronts.ts'
