import { isUtf8 } from 'node:buffer'
import { create } from '@bufbuild/protobuf'
import {
  type sendUnaryData,
  type ServerUnaryCall,
  status,
  type StatusObject,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { ResponseSchema } from '#proto/index.ts'
import { Fault } from '#shared/fault.ts'
import { collectBody } from '../body.ts'
import { faultOf } from '../fault-answer.ts'
import { requestIdOf } from '../request-id.ts'
import { type CallContext, checkBody, deadlineMsOf, runCall } from './call.ts'
import { headersOfMetadata } from './fields.ts'
import { statusOf } from './status.ts'

type Call = ServerUnaryCall<{ functionIdentifier: string; data: string }, unknown>

/** `openfogstack.tinyfaas.tinyfaas.TinyFaaS`: what clients of tinyFaaS see, down to the texts of its errors. */
export function tinyfaasService(context: CallContext): UntypedServiceImplementation {
  return {
    request(call: Call, done: sendUnaryData<unknown>) {
      const fn = call.request.functionIdentifier.replace(/^\//, '')
      const requestId = requestIdOf(undefined)
      const failed = (error: unknown): void =>
        done(tinyfaasStatus(faultOf(error, requestId, context.log), fn))
      runCall(context, call, async (signal) => {
        const response = await invoke(context, call, fn, requestId, signal)
        done(null, create(ResponseSchema, { response }))
      }).catch(failed)
    },
  }
}

async function invoke(
  context: CallContext,
  call: Call,
  fn: string,
  requestId: string,
  signal: AbortSignal,
): Promise<string> {
  const body = Buffer.from(call.request.data)
  checkBody(body.length, context.bodyBytesMax)
  const headers = headersOfMetadata(call.metadata)
  headers.push('authority', call.getHost(), 'content-type', 'application/grpc')
  const result = await context.invoker.invoke(
    {
      fn,
      method: 'POST',
      path: '',
      query: '',
      headers,
      body,
      protocol: 'grpc',
      requestId,
      deadlineMs: deadlineMsOf(call, 0),
    },
    signal,
  )
  // The function's status is dropped, as tinyFaaS does: whatever it answers is the response.
  const answer = await collectBody(result.body, context.bodyBytesMax)
  if (!isUtf8(answer)) throw new NotText()
  return answer.toString()
}

/** The response is a string by its proto, and a string must be UTF-8. */
class NotText extends Fault {
  constructor() {
    super('FUNCTION_BAD_ANSWER', 'the answer is not UTF-8: this service can only carry text')
  }
}

function tinyfaasStatus(fault: Fault, fn: string): StatusObject {
  const { metadata } = statusOf(fault)
  if (fault instanceof NotText) {
    return { code: status.INTERNAL, details: 'string field contains invalid UTF-8', metadata }
  }
  const details =
    fault.code === 'FUNCTION_UNKNOWN' ? `function ${fn} not found` : `error calling function ${fn}`
  return { code: status.UNKNOWN, details, metadata }
}
