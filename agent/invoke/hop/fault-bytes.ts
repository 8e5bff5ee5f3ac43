import { isFaultCode } from '#shared/fault.ts'
import type { Fault } from '#shared/fault.ts'
import { leanFault } from '../lane/index.ts'

/** Payload of an ERROR frame: the whole fault, but for its cause, which is for logs. */
export function faultBytes({ code, message, details }: Fault): Buffer {
  return Buffer.from(`\0${JSON.stringify({ code, message, details })}`)
}

/** The fault that `faultBytes` was given. */
export function readFaultBytes(buffer: Buffer, start: number, end: number): Fault {
  const { code, message, details }: Pick<Fault, 'message' | 'details'> & { code: string } =
    JSON.parse(buffer.toString('utf8', start + 1, end))
  return leanFault(isFaultCode(code) ? code : 'INTERNAL', message, details)
}
