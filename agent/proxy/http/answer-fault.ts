import type { ServerResponse } from 'node:http'
import { FAULTS, type Fault } from '#shared/fault.ts'
import { retryAfterSecondsOf } from '../fault-answer.ts'

/** The answer's body for a fault: the same shape everywhere in the system. */
export function faultJson(fault: Fault): string {
  const { code, message } = fault
  return JSON.stringify({ code, message, retry: FAULTS[code].retry })
}

/** Answers with a fault. The header must not have been sent. */
export function answerFault(
  response: ServerResponse,
  fault: Fault,
  requestId: string,
  close = false,
): void {
  const body = faultJson(fault)
  const headers: string[] = [
    'content-type',
    'application/json',
    'content-length',
    String(Buffer.byteLength(body)),
    'x-request-id',
    requestId,
  ]
  const retryAfter = retryAfterSecondsOf(fault)
  if (retryAfter !== undefined) headers.push('retry-after', String(retryAfter))
  if (close) headers.push('connection', 'close')
  response.writeHead(FAULTS[fault.code].http, headers)
  response.end(body)
}
