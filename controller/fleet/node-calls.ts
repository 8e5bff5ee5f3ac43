import { Compile } from 'typebox/compile'
import { Fault, isFaultCode } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import {
  HEAD_HEADER,
  InvokeReplyHead,
  LogsReply,
  type InvokeHead,
  type LogsRequest,
} from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import type { Bus } from './bus.ts'

/** For the way to the node and back, on top of the call's own deadline. */
const TRAVEL_MS = 2_000
const LOGS_TIMEOUT_MS = 5_000
const headValidator = Compile(InvokeReplyHead)
const logsValidator = Compile(LogsReply)

export interface InvokeAnswer {
  readonly status: number
  readonly headers: readonly (readonly [string, string])[]
  readonly body: Uint8Array
}

/**
 * Calls a function through a node.
 *
 * @throws Fault `BODY_TOO_LARGE`, `NODE_OFFLINE`, `NODE_TIMEOUT`, `CALLER_GONE`, and what the call ended in on the node
 */
export async function invokeThrough(
  bus: Bus,
  node: string,
  head: InvokeHead,
  body: Uint8Array,
  signal: AbortSignal,
): Promise<InvokeAnswer> {
  if (body.length > LIMITS.natsBodyBytesMax) {
    throw new Fault(
      'BODY_TOO_LARGE',
      `a body through the controller has at most ${LIMITS.natsBodyBytesMax} bytes; call the node itself for more`,
      { bytesMax: LIMITS.natsBodyBytesMax },
    )
  }
  const message = await bus.request(
    subjects.invoke(node),
    body,
    {
      timeoutMs: head.deadlineMs + TRAVEL_MS,
      headers: { [HEAD_HEADER]: JSON.stringify(head) },
    },
    signal,
  )
  const reply = parse(message.header(HEAD_HEADER) ?? '')
  if (!headValidator.Check(reply)) {
    throw new Fault('FUNCTION_BAD_ANSWER', `the answer of node ${node} cannot be read`, { node })
  }
  if (reply.code !== undefined) {
    const code = isFaultCode(reply.code) ? reply.code : 'INTERNAL'
    throw new Fault(code, reply.message ?? reply.code, { node, fn: head.fn })
  }
  return { status: reply.status, headers: reply.headers, body: message.data }
}

/** Asks a node for a function's lines. @throws Fault `NODE_OFFLINE`, `NODE_TIMEOUT`, `CALLER_GONE`, `INTERNAL` */
export async function requestLogs(
  bus: Bus,
  node: string,
  request: LogsRequest,
  signal: AbortSignal,
): Promise<LogsReply> {
  const data = new TextEncoder().encode(JSON.stringify(request))
  const options = { timeoutMs: LOGS_TIMEOUT_MS }
  const message = await bus.request(subjects.logs(node), data, options, signal)
  const reply = parse(new TextDecoder().decode(message.data))
  if (logsValidator.Check(reply)) return reply
  throw new Fault('INTERNAL', `the log lines of node ${node} cannot be read`, { node })
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
