import { Metadata, type StatusObject } from '@grpc/grpc-js'
import { FAULTS, type Fault } from '#shared/fault.ts'
import { retryAfterMsOf } from '../fault-answer.ts'

/** How a call ends that fails: the fault's gRPC code, and in the trailing metadata what the code cannot say. */
export function statusOf(fault: Fault): StatusObject {
  const { grpc, retry } = FAULTS[fault.code]
  const metadata = new Metadata()
  metadata.set('shoal-code', fault.code)
  metadata.set('shoal-retry', String(retry))
  const retryAfterMs = retryAfterMsOf(fault)
  if (retryAfterMs !== undefined) metadata.set('retry-after-ms', String(retryAfterMs))
  // oxlint-disable-next-line no-unsafe-enum-assignment -- The table holds the numbers, as it knows no library.
  return { code: grpc, details: `${fault.code}: ${fault.message}`, metadata }
}
