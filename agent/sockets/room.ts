import { totalmem } from 'node:os'

const MIB = 1024 * 1024

/** What an agent takes without any body: Node, this program, connections. Measured, rounded up. */
const REST_BYTES = 80 * MIB
const BODY_BYTES_MIN = 8 * MIB
const BODY_BYTES_MAX = 1024 * MIB
/** Below this, each call may send less ahead. */
const AMPLE_BYTES = 64 * MIB

/** How much memory calls may take. */
export interface Room {
  /** For bodies under way, in all protocols together. */
  readonly bodyBytes: number
  /** What each side of a call may send ahead to the other, of one handler. */
  readonly windowBytes: number
  /** So much new memory for bodies is taken until the garbage collector has to look for bodies that have gone. */
  readonly garbageBytes: number
}

/** @param limitBytes - all memory that the process may have */
export function roomOf(limitBytes: number): Room {
  const free = Math.floor((limitBytes - REST_BYTES) / 2)
  const bodyBytes = Math.min(BODY_BYTES_MAX, Math.max(BODY_BYTES_MIN, free))
  const ample = bodyBytes >= AMPLE_BYTES
  return {
    bodyBytes,
    windowBytes: (ample ? 256 : 64) * 1024,
    garbageBytes: (ample ? 16 : 4) * MIB,
  }
}

const PROCESSES = '--memory-shared-by='

/**
 * The argument with which a process is started that is one of so many in one control group: each would else take the group's whole limit
 * for its own. An argument, because the room has to be known before anything that asks for it is loaded.
 */
export function memorySharedBy(processes: number): string {
  return `${PROCESSES}${processes}`
}

function processesOf(args: readonly string[]): number {
  const arg = args.find((text) => text.startsWith(PROCESSES))
  return arg === undefined ? 1 : Number(arg.slice(PROCESSES.length))
}

/** Of this process: its part of its control group's limit, else of the host's memory. */
export const room: Room = roomOf(
  Math.min(totalmem(), process.constrainedMemory() || Infinity) / processesOf(process.argv),
)
