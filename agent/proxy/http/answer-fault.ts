import { FAULTS, Fault } from '#shared/fault.ts'
import { retryAfterSecondsOf } from '../fault-answer.ts'
import type { AnswerHead } from './answer-head.ts'

/**
 * The answer that tells a fault: the same shape everywhere in the system.
 *
 * @param requestId - undefined for a request whose head could not be read
 * @param status - default: the fault's own
 */
export function faultAnswer(
  fault: Fault,
  requestId: string | undefined,
  status: number = FAULTS[fault.code].http,
): { readonly head: AnswerHead; readonly body: Buffer } {
  const { code, message } = fault
  const body = Buffer.from(JSON.stringify({ code, message, retry: FAULTS[code].retry }))
  const retryAfter = retryAfterSecondsOf(fault)
  let lines = `content-type: application/json\r\ncontent-length: ${body.length}\r\n`
  if (requestId !== undefined) lines += `x-request-id: ${requestId}\r\n`
  if (retryAfter !== undefined) lines += `retry-after: ${retryAfter}\r\n`
  return { head: { status, lines, dated: false }, body }
}

/** The answer to a request that is none, or that came too slowly: in the shape of every other fault. */
export function refusalAnswer(status: number, reason: string): ReturnType<typeof faultAnswer> {
  const fault = new Fault('REQUEST_INVALID', `not a valid HTTP request: ${reason}`)
  return faultAnswer(fault, undefined, status)
}
