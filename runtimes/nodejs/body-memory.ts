import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { LIMIT } from './protocol.ts'

/**
 * V8 sees that bodies are garbage, but not how near the handler is to its memory limit: it lets 64 MiB and more of them wait, which is
 * most of a small handler. After so many bytes it is told to look at what is young; that takes about a millisecond.
 */
const EVERY_BYTES = 8 * 1024 * 1024
/** Above this share of the memory limit V8 is told to look at everything, which takes five milliseconds and more. */
const BUFFERS_SHARE_MAX = 0.4
/** The time between such looks is at least so many times what the last one took. */
const ALL_PAUSE_FACTOR = 4
const UNSENT_BYTES_MIN = 4 * 1024 * 1024
const UNSENT_SHARE_MAX = 1 / 8

interface Kind {
  readonly type: 'minor' | 'major'
  readonly execution: 'sync'
}

let collect: ((kind: Kind) => void) | undefined
let bytesSince = 0
let usedBytes = 0
let nextAllMs = 0
let limitBytes: number | undefined

/** Of the handler, asked for once: that reads files, for some 60 µs, and a function keeps the limit that it was loaded with. */
function memoryLimit(): number {
  return (limitBytes ??= process.constrainedMemory() || Number.POSITIVE_INFINITY)
}

/** Notes that memory for so many bytes of bodies was taken. */
export function tookBytes(bytes: number): void {
  bytesSince += bytes
  if (bytesSince < EVERY_BYTES) return
  const limit = memoryLimit()
  // What lives through two looks counts as old. So that calls end in time, the next look waits for as much as they hold.
  if (bytesSince < Math.min(usedBytes, limit / 8)) return
  bytesSince = 0
  collect ??= exposeCollect()
  collect({ type: 'minor', execution: 'sync' })
  if (process.memoryUsage().arrayBuffers < limit * BUFFERS_SHARE_MAX) return
  const startMs = performance.now()
  if (startMs < nextAllMs) return
  collect({ type: 'major', execution: 'sync' })
  const endMs = performance.now()
  nextAllMs = endMs + ALL_PAUSE_FACTOR * (endMs - startMs)
}

/**
 * A call may not have so many bytes waiting for a slow caller.
 *
 * @param piled - in several pieces; one alone was in memory before
 */
export function exceedsUnsent(bytes: number, piled: boolean, limit = memoryLimit()): boolean {
  if (bytes > LIMIT.unsentBytes) return true
  if (!piled) return false
  return bytes > Math.max(UNSENT_BYTES_MIN, limit * UNSENT_SHARE_MAX)
}

/** Notes that calls in flight hold so many bytes more, or less. */
export function holdBytes(bytes: number): void {
  usedBytes += bytes
}

/** In a context of its own, so that functions find no `gc` among their globals. */
function exposeCollect(): (kind: Kind) => void {
  setFlagsFromString('--expose-gc')
  const exposed: unknown = runInNewContext('gc')
  if (typeof exposed !== 'function') throw new TypeError('V8 has no gc to expose')
  return (kind) => void Reflect.apply(exposed, undefined, [kind])
}
