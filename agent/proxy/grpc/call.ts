import type { Metadata } from '@grpc/grpc-js'
import type { Invoker } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import type { ProxyLog } from '../log.ts'

/** What the services of functions share. */
export interface CallContext {
  readonly invoker: Invoker
  readonly bodyBytesMax: number
  readonly log: ProxyLog
  /** True when the proxy stops. */
  readonly closing: () => boolean
  /** Calls in flight; aborted when the drain time is over. */
  readonly calls: Set<AbortController>
}

/** The part of grpc-js' calls that all kinds have. */
interface AnyCall {
  readonly metadata: Metadata
  on(event: 'cancelled', listener: () => void): unknown
  getDeadline(): Date | number
}

/**
 * Runs one call: counted, refused while the proxy stops, aborted when the caller cancels, its deadline passes or the
 * connection ends.
 */
export async function runCall(
  context: CallContext,
  call: AnyCall,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  if (context.closing()) throw new Fault('SHUTTING_DOWN', 'this node is stopping')
  const abort = new AbortController()
  context.calls.add(abort)
  call.on('cancelled', () => {
    // grpc-js says so at the end of every call, also of one that was answered.
    if (context.calls.has(abort)) abort.abort(new Fault('CALLER_GONE', 'the caller has gone'))
  })
  try {
    await work(abort.signal)
  } catch (error) {
    // Why it was cancelled says more than that the function was.
    throw abort.signal.aborted ? abort.signal.reason : error
  } finally {
    context.calls.delete(abort)
  }
}

/** What is left until the earlier of the call's own deadline and the one in its message; `undefined`: none. */
export function deadlineMsOf(call: AnyCall, inMessageMs: number): number | undefined {
  const deadline = call.getDeadline()
  const atMs = typeof deadline === 'number' ? deadline : deadline.getTime()
  const leftMs = Number.isFinite(atMs) ? Math.max(1, atMs - Date.now()) : Number.POSITIVE_INFINITY
  const ms = Math.min(leftMs, inMessageMs > 0 ? inMessageMs : Number.POSITIVE_INFINITY)
  return Number.isFinite(ms) ? Math.ceil(ms) : undefined
}

/** @throws Fault `BODY_TOO_LARGE` */
export function checkBody(bytes: number, bytesMax: number): void {
  if (bytes <= bytesMax) return
  throw new Fault('BODY_TOO_LARGE', `the body is larger than ${bytesMax} bytes`, { bytesMax })
}
