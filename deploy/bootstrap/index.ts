/**
 * The set-up that `npm start` and `npm test` share: everything this machine needs, made idempotently, step by step.
 *
 * Depends on: `#shared`, `#runtimes`, dockerode, and the distribution's apt-get and dpkg. Used by: `deploy/`.
 *
 * @module
 */
export { bootstrap, BootstrapFailure } from './bootstrap.ts'
export type { Bootstrapped, BootstrapOptions } from './bootstrap.ts'
export { startDockerd } from './dockerd.ts'
export type { OwnDockerd } from './dockerd.ts'
export { coapClient, natsServer } from './programs.ts'
