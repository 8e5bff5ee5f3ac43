import { isUtf8 } from 'node:buffer'
import type { Result } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { collectBody } from '../body.ts'
import { requestIdOf } from '../request-id.ts'
import { bodyTooLarge, type CallContext, deadlineMsOf, startCall } from './call.ts'
import { type DataCall, readData, textFrame } from './messages/index.ts'
import { type Method, type ServerCall, STATUS, type Status, statusOf } from './server/index.ts'

/** `openfogstack.tinyfaas.tinyfaas.TinyFaaS`: what clients of tinyFaaS see, down to the texts of its errors. */
export function tinyfaasService(context: CallContext): Readonly<Record<string, Method>> {
  return {
    request: {
      kind: 'message',
      handle: (call, message) => handle(context, call, readData(message)),
    },
  }
}

function handle(context: CallContext, call: ServerCall, { functionIdentifier, data }: DataCall) {
  const fn = functionIdentifier.replace(/^\//, '')
  const status = (fault: Fault): Status => tinyfaasStatus(fault, fn)
  const { bodyBytesMax } = context
  if (data.length > bodyBytesMax) return call.fail(status(bodyTooLarge(bodyBytesMax)))
  const { metadata, authority } = call.head
  const invocation = {
    fn,
    method: 'POST',
    path: '',
    query: '',
    headers: [...metadata, 'authority', authority, 'content-type', 'application/grpc'],
    body: data,
    protocol: 'grpc',
    requestId: requestIdOf(undefined),
    deadlineMs: deadlineMsOf(call, 0),
  } as const
  startCall(context, call, invocation, status, (result) => answer(context, call, result))
}

/** The function's status is dropped, as tinyFaaS does: whatever it answers is the response. */
function answer(context: CallContext, call: ServerCall, result: Result): Promise<void> | void {
  const body = collectBody(result.body, context.bodyBytesMax)
  const send = (whole: Buffer): void => {
    if (!isUtf8(whole)) throw new NotText()
    call.answer(textFrame(whole))
  }
  return Buffer.isBuffer(body) ? send(body) : body.then(send)
}

/** The response is a string by its proto, and a string must be UTF-8. */
class NotText extends Fault {
  constructor() {
    super('FUNCTION_BAD_ANSWER', 'the answer is not UTF-8: this service can only carry text')
  }
}

function tinyfaasStatus(fault: Fault, fn: string): Status {
  const { trailers = [] } = statusOf(fault)
  if (fault instanceof NotText) {
    return { code: STATUS.internal, message: 'string field contains invalid UTF-8', trailers }
  }
  const message =
    fault.code === 'FUNCTION_UNKNOWN' ? `function ${fn} not found` : `error calling function ${fn}`
  return { code: STATUS.unknown, message, trailers }
}
