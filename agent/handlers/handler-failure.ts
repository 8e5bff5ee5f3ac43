import { Fault } from '#shared/fault.ts'
import { timeLimit } from '#shared/time-limit.ts'
import type { Engine, HandlerExit } from './engine.ts'
import type { HandlerRecord } from './handler-record.ts'

const TAIL_BYTES_MAX = 4 * 1024
const TAIL_MS = 5_000

/** What the end of a handler's process means. `loaded`: it has been ready before. */
export function exitFault(
  { limits }: HandlerRecord,
  { exitCode, oomKilled }: HandlerExit,
  loaded: boolean,
): Fault {
  const how = oomKilled
    ? `ran out of its ${limits.memoryMiB} MiB of memory`
    : exitCode < 0
      ? 'ended'
      : `ended with exit code ${exitCode}`
  const when = loaded ? '' : ' before it was ready'
  const code = loaded ? 'FUNCTION_EXITED' : 'HANDLER_START'
  return new Fault(code, `its process ${how}${when}`, { exitCode, oomKilled })
}

/** The fault with the handler's name and the last that it wrote, as far as that explains anything. */
export async function withTail(
  engine: Engine,
  record: HandlerRecord,
  fault: Fault,
): Promise<Fault> {
  const { fn, release, id } = record
  const details = { ...fault.details, fn, release, handler: id }
  const what = `handler of ${fn} ${release}: ${fault.message}`
  // The engine's own trouble explains itself, and there is nothing to read from it then.
  if (['ENGINE_UNAVAILABLE', 'IMAGE_MISSING', 'STORAGE'].includes(fault.code)) return fault
  const tail = await engine.tail(id, TAIL_BYTES_MAX, timeLimit(TAIL_MS)).catch(() => '')
  const message = tail.trim() === '' ? what : `${what}; its last output:\n${tail.trimEnd()}`
  return new Fault(fault.code, message, details, { cause: fault.cause })
}

/** True when the engine has not refused: it is away, or the time for asking it is over. It may do later what it was asked for. */
export function isPassing(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted || Fault.is(error, 'ENGINE_UNAVAILABLE')
}

/** For what is only good to have: true when it cannot be had. @throws what is passing */
export function isRefusal(error: unknown, signal: AbortSignal): true {
  if (isPassing(error, signal)) throw error
  return true
}
