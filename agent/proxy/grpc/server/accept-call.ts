import type { HeaderList } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import type { CallStream, CallStreamListener } from './call-stream.ts'
import { ENCODINGS, isKnownEncoding } from './inflate.ts'
import type { Method } from './method.ts'
import { isGrpc, readHead } from './request-head.ts'
import { type CallHost, ServerCall, trailersOnly } from './server-call.ts'
import { STATUS, type Status, statusOf } from './status.ts'

export interface AcceptHost extends CallHost {
  /** By path: `/service/method`. */
  readonly methods: ReadonlyMap<string, Method>
  /** True when the server stops. */
  readonly closing: boolean
}

/**
 * Begins a call, or refuses it by its header alone.
 *
 * @param whole - False when the header is too large, and not all of it is there.
 * @returns who listens to the stream, `undefined` when it has been refused
 */
export function acceptCall(
  host: AcceptHost,
  stream: CallStream,
  header: HeaderList,
  whole: boolean,
): CallStreamListener | undefined {
  if (!whole) return refuse(stream, TOO_LARGE)
  const head = readHead(header)
  if (head.method !== 'POST') {
    stream.refuse([':status', '405', 'allow', 'POST'])
    return undefined
  }
  if (!isGrpc(head.contentType)) {
    stream.refuse([':status', '415', 'accept-post', 'application/grpc'])
    return undefined
  }
  const method = host.methods.get(head.path)
  if (host.closing) return refuse(stream, statusOf(stopping()))
  if (method === undefined) return refuse(stream, unknownMethod(head.path))
  if (!isKnownEncoding(head.encoding)) return refuse(stream, unknownEncoding(head.encoding))
  return new ServerCall(host, stream, head, method)
}

function refuse(stream: CallStream, status: Status): undefined {
  stream.refuse(trailersOnly(status))
  return undefined
}

const TOO_LARGE = { code: STATUS.resourceExhausted, message: 'the header is too large' } as const

function stopping(): Fault {
  return new Fault('SHUTTING_DOWN', 'this node is stopping')
}

function unknownMethod(path: string): Status {
  return { code: STATUS.unimplemented, message: `no method answers at ${path}` }
}

function unknownEncoding(encoding: string): Status {
  return {
    code: STATUS.unimplemented,
    message: `grpc-encoding ${encoding} is not known here`,
    trailers: ['grpc-accept-encoding', ENCODINGS],
  }
}
