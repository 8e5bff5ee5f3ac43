import type { Fault } from '#shared/fault.ts'
import type { Reason } from '#shared/schemas/health.ts'
import { leanFault } from './lean-fault.ts'

// What a lane refuses calls with; without stacks, since under overload they come in thousands per second.

export function removedFault(fn: string): Fault {
  return leanFault('FUNCTION_UNKNOWN', `${fn} does not run on this node`, {})
}

export function goneFault(fn: string): Fault {
  return leanFault('CALLER_GONE', `The caller of ${fn} has gone`, {})
}

export function tooLargeFault(bodyBytesMax: number): Fault {
  return leanFault('BODY_TOO_LARGE', `The body has more than ${bodyBytesMax} bytes`, {
    bodyBytesMax,
  })
}

export function unavailableFault(fn: string, reason: Reason): Fault {
  return leanFault('FUNCTION_UNAVAILABLE', `${fn}: ${reason.message}`, { reason: reason.code })
}

export function saturatedFault(fn: string, retryAfterMs: number): Fault {
  return leanFault(
    'FUNCTION_SATURATED',
    `${fn} has as many calls as it may have; try again in ${retryAfterMs} ms`,
    { retryAfterMs },
  )
}
