/**
 * How the controller reaches this node: enrolment, the signed desired state kept on the disk, artifacts, calls and logs over NATS.
 *
 * Depends on: `#shared`, `#agent/invoke` (types), @nats-io. Used by: `agent/main.ts`, `agent/health` (types).
 *
 * @module
 */
export { NatsArtifactSource } from './artifact-source.ts'
export type { ArtifactSourceOptions } from './artifact-source.ts'
export { CommandKeeper } from './command-keeper.ts'
export type { CommandKeeperOptions } from './command-keeper.ts'
export { ensureIdentity, forgetEnrolment, parseToken } from './identity.ts'
export type { Identity, IdentityOptions } from './identity.ts'
export type { CommandLog } from './log.ts'
export { LogBook } from './log-book.ts'
export type { LogBookOptions } from './log-book.ts'
export { NatsLink } from './nats-link.ts'
export type { NatsLinkOptions } from './nats-link.ts'
export { NodeService } from './node-service.ts'
export type { NodeServiceOptions } from './node-service.ts'
export { TrustKeeper } from './trust-keeper.ts'
export type { TrustKeeperOptions } from './trust-keeper.ts'
