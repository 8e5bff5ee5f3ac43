import { once } from 'node:events'
import { connect, type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'
import { create, toBinary } from '@bufbuild/protobuf'
import { InvokeRequestSchema } from '#proto/index.ts'

export const INVOKE = '/shoal.v1.Functions/Invoke'
export const INVOKE_STREAM = '/shoal.v1.Functions/InvokeStream'

/** A message as it goes over the wire. */
export function grpcFrame(message: Uint8Array, flag = 0): Buffer {
  const prefix = Buffer.alloc(5)
  prefix[0] = flag
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** An `InvokeRequest`. */
export function invokeMessage(fn: string, payload: string | Uint8Array = '', query = ''): Buffer {
  const message = { function: fn, payload: Buffer.from(payload), query }
  return Buffer.from(toBinary(InvokeRequestSchema, create(InvokeRequestSchema, message)))
}

export interface Http2Answer {
  /** HTTP's. */
  readonly status: number
  /** gRPC's, from the trailers or from a header that is all there is; -1: none came. */
  readonly code: number
  readonly message: string
  /** Header and trailers. */
  readonly fields: Readonly<Record<string, string | number | string[] | undefined>>
  readonly body: Buffer
  /** True when the answer was a header alone. */
  readonly trailersOnly: boolean
  /** Of the stream's end. */
  readonly reset: number
}

/** A connection of Node's own HTTP/2 client. */
export async function http2Client(port: number): Promise<ClientHttp2Session & AsyncDisposable> {
  // Node's client takes no answers while it has more than 10 MB to send, unless it is told otherwise.
  const session = connect(`http://127.0.0.1:${port}`, { maxSessionMemory: 1_000 })
  session.on('error', () => undefined)
  await new Promise<void>((resolve, reject) => {
    session.once('remoteSettings', () => resolve())
    session.once('close', () => reject(new Error('the server has closed the connection')))
  })
  return Object.assign(session, {
    async [Symbol.asyncDispose]() {
      if (session.destroyed) return
      const closed = once(session, 'close')
      session.destroy()
      await closed
    },
  })
}

/** One request with any body in any pieces; without `end` the request stays open. */
export async function http2Call(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders = {},
  body: readonly Buffer[] = [],
  end = true,
): Promise<Http2Answer> {
  const stream = session.request({
    ':method': 'POST',
    ':path': INVOKE,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  })
  const fields: Record<string, string | number | string[] | undefined> = {}
  let trailersOnly = false
  stream.on('response', (header, flags) => {
    Object.assign(fields, header)
    trailersOnly = (flags & 1) !== 0
  })
  stream.on('trailers', (trailers) => Object.assign(fields, trailers))
  stream.on('error', () => undefined)
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  for (const piece of body) stream.write(piece)
  if (end) stream.end()
  await new Promise<void>((resolve) => {
    stream.once('close', () => resolve())
  })
  return {
    status: Number(fields[':status'] ?? -1),
    code: Number(fields['grpc-status'] ?? -1),
    message: decodeURIComponent(String(fields['grpc-message'] ?? '')),
    fields,
    body: Buffer.concat(chunks),
    trailersOnly,
    reset: stream.rstCode ?? -1,
  }
}
