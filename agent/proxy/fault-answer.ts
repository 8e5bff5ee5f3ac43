import { Fault } from '#shared/fault.ts'
import type { ProxyLog } from './log.ts'

/**
 * Any failure of a call as the fault that the caller is told. What is not a `Fault` is a bug of ours: it is
 * logged here, and the caller learns no detail of it.
 */
export function faultOf(error: unknown, requestId: string, log: ProxyLog): Fault {
  if (error instanceof Fault) return error
  log.error({ err: error, request: requestId }, 'unexpected error in a call')
  return new Fault('INTERNAL', 'internal error')
}

/** When the caller may try again, in milliseconds, if the fault says so. */
export function retryAfterMsOf(fault: Fault): number | undefined {
  const { retryAfterMs } = fault.details
  return typeof retryAfterMs === 'number' && retryAfterMs >= 0 ? retryAfterMs : undefined
}

/** The same in whole seconds, at least 1, for protocols that count so. */
export function retryAfterSecondsOf(fault: Fault): number | undefined {
  const ms = retryAfterMsOf(fault)
  return ms === undefined ? undefined : Math.max(1, Math.ceil(ms / 1000))
}
