/**
 * Memory given back to the system when the work is over; for every process of the agent.
 *
 * Depends on sockets/. Used by main.ts and fronts/.
 */
export { bodyGarbage } from './body-garbage.ts'
export { MemoryTrim, startMemoryTrim } from './memory-trim.ts'
export type { MemoryTrimOptions } from './memory-trim.ts'
