import type { Invocation, Invoker, Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { faultOf } from '../fault-answer.ts'
import type { ProxyLog } from '../log.ts'
import type { ServerCall, Status } from './server/index.ts'

/** What the services of functions share. */
export interface CallContext {
  readonly invoker: Invoker
  readonly bodyBytesMax: number
  readonly log: ProxyLog
}

/**
 * Calls the function. It is told when the call ends before its answer, and the call ends with what goes wrong: what the invoker says, or
 * what `answered` throws.
 *
 * @param answered - Gets the function's answer, unless there is nobody left to tell; must then read or destroy its body.
 */
export function startCall(
  context: CallContext,
  call: ServerCall,
  invocation: Invocation,
  statusOf: (fault: Fault) => Status,
  answered: (result: Result) => Promise<void> | void,
): void {
  const failed = (error: unknown): void => {
    call.fail(statusOf(faultOf(error, invocation.requestId, context.log)))
  }
  const onResult = (result: Result): void => {
    if (call.isOver) return destroyBody(result)
    try {
      const work = answered(result)
      work?.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
  context.invoker.start(invocation, call.signal, onResult, failed)
}

function destroyBody({ body }: Result): void {
  if (!Buffer.isBuffer(body)) body.destroy()
}

/** What is left until the earlier of the call's own deadline and the one in its message; `undefined`: none. */
export function deadlineMsOf(call: ServerCall, inMessageMs: number): number | undefined {
  const { timeoutMs, arrivedAtMs } = call
  const inMessage = inMessageMs > 0 ? inMessageMs : undefined
  if (timeoutMs === undefined) return inMessage
  const leftMs = Math.max(1, Math.ceil(timeoutMs - (performance.now() - arrivedAtMs)))
  return inMessage === undefined ? leftMs : Math.min(leftMs, inMessage)
}

export function bodyTooLarge(bytesMax: number): Fault {
  return new Fault('BODY_TOO_LARGE', `the body is larger than ${bytesMax} bytes`, { bytesMax })
}
