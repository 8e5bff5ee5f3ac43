/**
 * Memory given back to the system when the work is over, for every process of the agent; and compiled code kept for the next start.
 *
 * Depends on sockets/. Used by main.ts and fronts/.
 */
export { bodyGarbage } from './body-garbage.ts'
export { MemoryTrim, startMemoryTrim } from './memory-trim.ts'
export type { MemoryTrimOptions } from './memory-trim.ts'
export { keepCompiled } from './compiled-code.ts'
