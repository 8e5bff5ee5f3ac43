/**
 * Memory given back to the system when the work is over; for every process of the agent.
 *
 * Depends on nothing. Used by main.ts and fronts/.
 */
export { MemoryTrim, startMemoryTrim } from './memory-trim.ts'
export type { MemoryTrimOptions } from './memory-trim.ts'
