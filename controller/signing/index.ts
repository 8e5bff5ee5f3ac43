/**
 * The controller's keys: trust document, signed commands, and the NATS authority that names nodes.
 *
 * Depends on: `#shared`, jose, @nats-io/jwt, @nats-io/nkeys. Used by: `controller/main.ts`, `deploy/`.
 *
 * @module
 */
export { ensureKeys } from './keys.ts'
export type { Signing, SigningOptions } from './keys.ts'
export { ensureNatsAuthority } from './nats-authority.ts'
export type { NatsAuthority, NatsAuthorityOptions, NatsUser } from './nats-authority.ts'
