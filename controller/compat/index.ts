/**
 * Adapters for clients of earlier systems: each one listens on a loopback port of its own, off unless `SHOAL_COMPAT` names it.
 *
 * Depends on: `#shared`, `controller/api-client` (they use the controller as any other client does). Used by: `controller/main.ts`.
 *
 * @module
 */
export { COMPAT_NAMES, startCompat } from './start-compat.ts'
export type { CompatName, CompatOptions } from './start-compat.ts'
export type { FunctionsPort } from './functions-port.ts'
