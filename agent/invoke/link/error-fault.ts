import { Fault } from '#shared/fault.ts'
import type { FaultCode } from '#shared/fault.ts'
import { byteAt, ERROR_KIND, readText } from '../frames/index.ts'

const CODES = new Map<number, FaultCode>([
  [ERROR_KIND.functionError, 'FUNCTION_ERROR'],
  [ERROR_KIND.notReady, 'FUNCTION_UNAVAILABLE'],
  [ERROR_KIND.badAnswer, 'FUNCTION_BAD_ANSWER'],
  // Nobody asked for it, else nobody would be told: the function ended its own call.
  [ERROR_KIND.cancelled, 'FUNCTION_ERROR'],
  [ERROR_KIND.resources, 'FUNCTION_SATURATED'],
  [ERROR_KIND.exited, 'FUNCTION_EXITED'],
])

/** The payload of an ERROR frame as a fault: its message is the text's first line, `details.text` the whole when there is more. */
export function errorFault(buffer: Buffer, start: number, payloadEnd: number): Fault {
  const kind = byteAt(buffer, start)
  const text = readText(buffer, start + 1, payloadEnd)
  const code = CODES.get(kind) ?? 'FUNCTION_ERROR'
  const end = text.indexOf('\n')
  const first = end === -1 ? text : text.slice(0, end)
  const message = first === '' ? 'The function failed without a word' : first
  return new Fault(code, message, {
    text: end === -1 ? undefined : text,
    retryAfterMs: code === 'FUNCTION_SATURATED' ? 1_000 : undefined,
  })
}
