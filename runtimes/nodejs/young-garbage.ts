import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * V8 sees that bodies are garbage, but not how near the handler is to its memory limit: it lets 64 MiB and more of them wait, which is
 * most of a small handler. After so many bytes it is told to look at what is young; that takes about a millisecond.
 */
const EVERY_BYTES = 8 * 1024 * 1024

type Collect = (options: { readonly type: 'minor'; readonly execution: 'sync' }) => void

let collect: Collect | undefined
let bytesSince = 0

/** Notes that memory for so many bytes of bodies was taken. */
export function tookBytes(bytes: number): void {
  bytesSince += bytes
  if (bytesSince < EVERY_BYTES) return
  bytesSince = 0
  collect ??= exposeCollect()
  collect({ type: 'minor', execution: 'sync' })
}

/** In a context of its own, so that functions find no `gc` among their globals. */
function exposeCollect(): Collect {
  setFlagsFromString('--expose-gc')
  const exposed: unknown = runInNewContext('gc')
  if (typeof exposed !== 'function') throw new TypeError('V8 has no gc to expose')
  return (options) => void Reflect.apply(exposed, undefined, [options])
}
