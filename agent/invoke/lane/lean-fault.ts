import { Fault } from '#shared/fault.ts'
import type { FaultCode, FaultDetails } from '#shared/fault.ts'

/**
 * A fault without a stack: for outcomes that are no surprise and come in thousands per second under overload, where
 * collecting the stack would cost more than the call.
 */
export function leanFault(code: FaultCode, message: string, details: FaultDetails): Fault {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return new Fault(code, message, details)
  } finally {
    Error.stackTraceLimit = limit
  }
}
