import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { ApiError } from '#shared/schemas/api.ts'
import { Fault, isFaultCode, type FaultDetails } from '#shared/fault.ts'

export interface HttpCall {
  readonly method: string
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body?: Readable | Uint8Array | undefined
}

const ANSWER_BYTES_MAX = 64 * 1024 * 1024
const ERROR_BYTES_MAX = 1024 * 1024

/**
 * One HTTP call, by `node:http`: unlike `fetch`, it lets an answer be silent for as long as it wants, which followed logs are.
 *
 * @throws Fault `CONTROLLER_UNREACHABLE`, or the signal's reason
 */
export async function httpCall(call: HttpCall, signal: AbortSignal): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const { method, url } = call
  const headers = { ...call.headers }
  if (call.body instanceof Uint8Array) headers['content-length'] = String(call.body.length)
  const send = url.protocol === 'https:' ? https.request : http.request
  const request = send(url, { method, headers, signal })
  request.on('response', resolve).on('error', reject)
  if (call.body instanceof Readable) {
    // A server that refuses a body answers before it is read: the answer counts, not the broken pipe.
    pipeline(call.body, request).catch(() => undefined)
  } else request.end(call.body)
  try {
    return await promise
  } catch (cause) {
    if (signal.aborted) throw signal.reason
    const why = cause instanceof Error ? cause.message || cause.name : String(cause)
    throw new Fault(
      'CONTROLLER_UNREACHABLE',
      `no answer from the controller at ${url.origin}: ${why}`,
      { url: url.origin },
      { cause },
    )
  } finally {
    if (call.body instanceof Readable && signal.aborted) call.body.destroy()
  }
}

/** The whole answer as text. */
export async function readText(answer: Readable, bytesMax = ANSWER_BYTES_MAX): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer) {
    const part = Buffer.from(chunk)
    bytes += part.length
    if (bytes > bytesMax) throw new Fault('INTERNAL', `the answer has more than ${bytesMax} bytes`)
    chunks.push(part)
  }
  return Buffer.concat(chunks).toString('utf8')
}

const LINE_CHARS_MAX = 16 * 1024 * 1024

/**
 * Reads an answer line by line.
 *
 * @yields Each line, parsed as JSON.
 * @throws Fault `CONTROLLER_UNREACHABLE` when the answer breaks off
 */
export async function* readLines(answer: IncomingMessage): AsyncGenerator<unknown, void> {
  answer.setEncoding('utf8')
  let rest = ''
  try {
    for await (const chunk of answer) {
      const lines = (rest + String(chunk)).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > LINE_CHARS_MAX)
        throw new Fault('INTERNAL', 'a line of the answer is endless')
      for (const line of lines) if (line.trim() !== '') yield parseJson(line)
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ECONNRESET') {
      throw new Fault('CONTROLLER_UNREACHABLE', 'the connection broke off', {}, { cause: error })
    }
    throw error
  }
  if (rest.trim() !== '') yield parseJson(rest)
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const shown = text.slice(0, 100)
    throw new Fault(
      'INTERNAL',
      `the answer is not JSON (is this the controller?): ${shown}`,
      {},
      {
        cause,
      },
    )
  }
}

const Details = Type.Record(
  Type.String(),
  Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Array(Type.String())]),
)

/** An error answer as the fault it names. */
export async function faultOf(answer: IncomingMessage): Promise<Fault> {
  const status = answer.statusCode ?? 0
  const text = await readText(answer, ERROR_BYTES_MAX)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // Not ours, a gateway's perhaps: its words are all there is.
  }
  if (!Value.Check(ApiError, value)) {
    return new Fault('INTERNAL', `the controller answered ${status}: ${text.slice(0, 200)}`)
  }
  const details = Value.Check(Details, value.details) ? value.details : {}
  return namedFault(value.code, value.message, details)
}

/** A fault by the code that came over the wire; one that this version does not know keeps its name in the message. */
export function namedFault(code: string, message: string, details: FaultDetails = {}): Fault {
  if (isFaultCode(code)) return new Fault(code, message, details)
  return new Fault('INTERNAL', `${code}: ${message}`, details)
}
