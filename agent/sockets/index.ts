/**
 * What several parts need around the sockets that they accept: reading into memory of their own, memory that is used again, and how
 * much of it all calls may have.
 * Depends on node:net.
 * Used by invoke/, proxy/ and the composition root.
 */
export { BlockLease } from './block-lease.ts'
export { Blocks, blocks } from './blocks.ts'
export { BodyBudget, bodyBudget } from './body-budget.ts'
export { memorySharedBy, type Room, room, roomOf } from './room.ts'
export { takenBytes } from './taken-bytes.ts'
export { withReadBuffer } from './with-read-buffer.ts'
