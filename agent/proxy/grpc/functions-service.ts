import { once } from 'node:events'
import { create } from '@bufbuild/protobuf'
import type {
  sendUnaryData,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedServiceImplementation,
} from '@grpc/grpc-js'
import type { Body, Invocation, Result } from '#agent/invoke/index.ts'
import { InvokeChunkSchema, type InvokeRequest, InvokeResponseSchema } from '#proto/index.ts'
import { Fault } from '#shared/fault.ts'
import { collectBody } from '../body.ts'
import { guessContentType, guessStreamContentType } from '../content-type.ts'
import { faultOf } from '../fault-answer.ts'
import { requestIdOf } from '../request-id.ts'
import { type CallContext, checkBody, deadlineMsOf, runCall } from './call.ts'
import { viewOf } from './definition.ts'
import { checkFields, headersOfMetadata, metadataOfHeaders } from './fields.ts'
import { statusOf } from './status.ts'

/** Chunks of an answer are at most this large: clients refuse messages above 4 MiB by default. */
const CHUNK_BYTES_MAX = 256 * 1024

type UnaryCall = ServerUnaryCall<InvokeRequest, unknown>
type StreamCall = ServerWritableStream<InvokeRequest, unknown>

/** `shoal.v1.Functions`. */
export function functionsService(context: CallContext): UntypedServiceImplementation {
  const fault = (error: unknown, call: UnaryCall | StreamCall): Fault =>
    faultOf(error, requestIdOfCall(call), context.log)
  return {
    invoke(call: UnaryCall, done: sendUnaryData<unknown>) {
      const failed = (error: unknown): void => done(statusOf(fault(error, call)))
      runCall(context, call, async (signal) => {
        done(null, await invoke(context, call, signal))
      }).catch(failed)
    },
    invokeStream(call: StreamCall) {
      runCall(context, call, (signal) => invokeStream(context, call, signal)).then(
        () => call.end(),
        (error: unknown) => {
          if (!call.cancelled) call.emit('error', statusOf(fault(error, call)))
        },
      )
    },
  }
}

async function invoke(context: CallContext, call: UnaryCall, signal: AbortSignal) {
  const result = await context.invoker.invoke(invocationOf(context, call), signal)
  const payload = await collectBody(result.body, context.bodyBytesMax)
  const { metadata, contentType } = metadataOfHeaders(result.headers)
  return create(InvokeResponseSchema, {
    payload,
    status: checkedStatus(result),
    metadata,
    contentType: contentType ?? guessContentType(payload),
  })
}

async function invokeStream(
  context: CallContext,
  call: StreamCall,
  signal: AbortSignal,
): Promise<void> {
  const result = await context.invoker.invoke(invocationOf(context, call), signal)
  const status = checkedStatus(result)
  const { metadata, contentType } = metadataOfHeaders(result.headers)
  let first = true
  for await (const chunk of chunksOf(result.body)) {
    const payload = { payload: chunk }
    const head = { status, metadata, contentType: contentType ?? guessStreamContentType(chunk) }
    const message = create(InvokeChunkSchema, first ? { ...payload, ...head } : payload)
    first = false
    if (!call.write(message)) await once(call, 'drain', { signal })
  }
}

// At least one chunk, perhaps an empty one: it carries the status. Leaving the loop early destroys the stream.
async function* chunksOf(body: Body): AsyncGenerator<Buffer> {
  let some = false
  const pieces: AsyncIterable<Buffer> | Buffer[] = Buffer.isBuffer(body) ? [body] : body
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; at += CHUNK_BYTES_MAX) {
      some = true
      yield piece.subarray(at, at + CHUNK_BYTES_MAX)
    }
  }
  if (!some) yield Buffer.alloc(0)
}

function checkedStatus({ status, body }: Result): number {
  if (status >= 200 && status <= 599) return status
  if (!Buffer.isBuffer(body)) body.destroy()
  throw new Fault('FUNCTION_BAD_ANSWER', `the function answered with status ${status}`)
}

function requestIdOfCall(call: UnaryCall | StreamCall): string {
  const [given] = call.metadata.get('x-request-id')
  return requestIdOf(typeof given === 'string' ? given : undefined)
}

function invocationOf(context: CallContext, call: UnaryCall | StreamCall): Invocation {
  const { request } = call
  checkFields(request)
  checkBody(request.payload.length, context.bodyBytesMax)
  const own = new Map(
    Object.entries(request.metadata).map(([name, value]) => [name.toLowerCase(), value]),
  )
  own.set(
    'content-type',
    request.contentType || own.get('content-type') || 'application/octet-stream',
  )
  const headers: string[] = []
  const outer = headersOfMetadata(call.metadata)
  for (let at = 0; at + 1 < outer.length; at += 2) {
    const name = outer[at] ?? ''
    if (!own.has(name)) headers.push(name, outer[at + 1] ?? '')
  }
  for (const [name, value] of own) headers.push(name, value)
  return {
    fn: request.function,
    method: request.method === '' ? 'POST' : request.method.toUpperCase(),
    path: request.path,
    query: request.query,
    headers,
    body: viewOf(request.payload),
    protocol: 'grpc',
    requestId: requestIdOfCall(call),
    deadlineMs: deadlineMsOf(call, request.deadlineMs),
  }
}
