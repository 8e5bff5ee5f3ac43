import type { Readable } from 'node:stream'
import type { HeaderList, Invocation, Result } from '#agent/invoke/index.ts'
import { room } from '#agent/sockets/index.ts'
import { Fault } from '#shared/fault.ts'
import { collectBody } from '../body.ts'
import { guessContentType, guessStreamContentType, OCTETS } from '../content-type.ts'
import { requestIdOf } from '../request-id.ts'
import { bodyTooLarge, type CallContext, deadlineMsOf, startCall } from './call.ts'
import { checkFields, fieldOf, metadataOfHeaders } from './fields.ts'
import { answerFrame, type InvokeCall, readInvokeRequest } from './messages/index.ts'
import { type Method, type ServerCall, statusOf } from './server/index.ts'

/** Chunks of an answer are at most this large: clients refuse messages above 4 MiB by default. */
const CHUNK_BYTES_MAX = 256 * 1024

/** `shoal.v1.Functions`. */
export function functionsService(context: CallContext): Readonly<Record<string, Method>> {
  const method = (answer: (call: ServerCall, result: Result) => Promise<void> | void): Method => ({
    kind: 'message',
    handle(call, message) {
      const invocation = invocationOf(context, call, readInvokeRequest(message))
      startCall(context, call, invocation, statusOf, (result) => answer(call, result))
    },
  })
  return {
    invoke: method((call, result) => answerWhole(context, call, result)),
    invokeStream: method(answerStream),
  }
}

function answerWhole(context: CallContext, call: ServerCall, result: Result): Promise<void> | void {
  const head = headOf(result)
  const payload = collectBody(result.body, context.bodyBytesMax)
  const send = (whole: Buffer): void => {
    const contentType = head.contentType ?? guessContentType(whole)
    call.answer(answerFrame(whole, { ...head, contentType }))
  }
  return Buffer.isBuffer(payload) ? send(payload) : payload.then(send)
}

function answerStream(call: ServerCall, result: Result): Promise<void> | void {
  const { body } = result
  const send = chunkSender(call, headOf(result))
  if (!Buffer.isBuffer(body)) return answerPieces(call, body, send)
  // All of it is there: what waits for the caller counts, what waited here would not.
  if (body.length === 0) send(body)
  for (const chunk of chunksOf(body)) send(chunk)
  call.finish()
}

async function answerPieces(call: ServerCall, body: Readable, send: SendChunk): Promise<void> {
  const pieces: AsyncIterable<Buffer> = body
  let some = false
  // Leaving the loop early destroys the stream.
  for await (const piece of pieces) {
    for (const chunk of chunksOf(piece)) {
      some = true
      if (!send(chunk)) await call.untilDrained(room.windowBytes)
      if (call.reason !== undefined) throw call.reason
    }
  }
  // At least one chunk, perhaps an empty one: it carries the status.
  if (!some) send(Buffer.alloc(0))
  call.finish()
}

/** False: wait before the next. */
type SendChunk = (chunk: Buffer) => boolean

/** Sends the chunks of an answer, the first of them with its head. */
function chunkSender(call: ServerCall, head: ReturnType<typeof headOf>): SendChunk {
  let first = true
  return (chunk) => {
    if (!first) return call.send(answerFrame(chunk, undefined))
    first = false
    const contentType = head.contentType ?? guessStreamContentType(chunk)
    return call.send(answerFrame(chunk, { ...head, contentType }))
  }
}

function* chunksOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) {
    yield bytes.subarray(at, at + CHUNK_BYTES_MAX)
  }
}

function headOf({ status, headers, body }: Result) {
  if (status >= 200 && status <= 599) return { status, ...metadataOfHeaders(headers) }
  if (!Buffer.isBuffer(body)) body.destroy()
  throw new Fault('FUNCTION_BAD_ANSWER', `the function answered with status ${status}`)
}

/** @throws Fault `REQUEST_INVALID`, `BODY_TOO_LARGE` */
function invocationOf(context: CallContext, call: ServerCall, request: InvokeCall): Invocation {
  checkFields(request)
  const { bodyBytesMax } = context
  if (request.payload.length > bodyBytesMax) throw bodyTooLarge(bodyBytesMax)
  return {
    fn: request.function,
    method: request.method === '' ? 'POST' : request.method.toUpperCase(),
    path: request.path,
    query: request.query,
    headers: headersOf(call.head.metadata, request),
    body: request.payload,
    protocol: 'grpc',
    requestId: requestIdOf(fieldOf(call.head.metadata, 'x-request-id')),
    deadlineMs: deadlineMsOf(call, request.deadlineMs),
  }
}

/** The call's metadata, then those of the message, which win. */
function headersOf(outer: HeaderList, request: InvokeCall): HeaderList {
  const { metadata, contentType } = request
  if (metadata.length === 0) {
    return [...outer, 'content-type', contentType === '' ? OCTETS : contentType]
  }
  const own = new Map<string, string>()
  for (let at = 0; at + 1 < metadata.length; at += 2) {
    own.set((metadata[at] ?? '').toLowerCase(), metadata[at + 1] ?? '')
  }
  own.set('content-type', contentType || own.get('content-type') || OCTETS)
  const headers: string[] = []
  for (let at = 0; at + 1 < outer.length; at += 2) {
    const name = outer[at] ?? ''
    if (!own.has(name)) headers.push(name, outer[at + 1] ?? '')
  }
  for (const [name, value] of own) headers.push(name, value)
  return headers
}
