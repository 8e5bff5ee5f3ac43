import { randomUUID } from 'node:crypto'
import { headers as natsHeaders, type Msg } from '@nats-io/transport-node'
import type { HeaderList, Invoker, Result } from '#agent/invoke/index.ts'
import { lazyValidator } from '#shared/lazy-validator.ts'
import { Fault, FAULTS } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { HEAD_HEADER, InvokeHead, type InvokeReplyHead } from '#shared/schemas/wire.ts'
import { cutText } from '#shared/text.ts'
import type { CommandLog } from './log.ts'

const CALLS_MAX = 256
/** Head and body share NATS' max_payload of 1 MiB. */
const HEAD_BYTES_MAX = 128 * 1024
const MESSAGE_CHARS_MAX = 4_096

const headValidator = lazyValidator(InvokeHead)

export interface InvokeResponderOptions {
  readonly invoker: Pick<Invoker, 'invoke'>
  readonly log: CommandLog
}

/** Calls that come over NATS: run through the node's `Invoker` like those of any other protocol, whole bodies only. */
export class InvokeResponder {
  readonly #options: InvokeResponderOptions
  readonly #running = new Set<Promise<void>>()
  #closed = false

  constructor(options: InvokeResponderOptions) {
    this.#options = options
  }

  handle(message: Msg): void {
    const work = this.#answer(message)
    this.#running.add(work)
    work.finally(() => this.#running.delete(work)).catch(() => {})
  }

  /** Refuses new calls and waits for those that run; the router's own end bounds that. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#running)
  }

  async #answer(message: Msg): Promise<void> {
    let head: InvokeReplyHead
    let body: Uint8Array = new Uint8Array()
    try {
      const result = await this.#call(message)
      body = await collect(result)
      head = { status: result.status, headers: pairs(result.headers) }
      if (Buffer.byteLength(JSON.stringify(head)) > HEAD_BYTES_MAX) {
        throw new Fault('FUNCTION_OUTPUT_TOO_LARGE', 'the headers are too large for NATS')
      }
    } catch (error) {
      const { code, message: detail } = Fault.from(error)
      const internal = code === 'INTERNAL'
      // What went wrong inside stays inside: the log has it.
      const text = internal ? "internal error; the node's log says more" : detail
      if (internal) this.#options.log.error({ err: error }, 'call over NATS failed')
      body = new Uint8Array()
      head = {
        status: FAULTS[code].http,
        headers: [],
        code,
        message: cutText(text, MESSAGE_CHARS_MAX),
      }
    }
    const reply = natsHeaders()
    reply.set(HEAD_HEADER, JSON.stringify(head))
    try {
      message.respond(body, { headers: reply })
    } catch (error) {
      // The connection ended while the call ran; the caller's own deadline tells it.
      this.#options.log.debug({ err: error }, 'answer over NATS not sent')
    }
  }

  async #call(message: Msg): Promise<Result> {
    if (this.#closed) throw new Fault('SHUTTING_DOWN', 'this node is stopping')
    if (this.#running.size >= CALLS_MAX) {
      throw new Fault('FUNCTION_SATURATED', `${CALLS_MAX} calls over NATS are running already`, {
        retryAfterMs: 1_000,
      })
    }
    const head = parseHead(message.headers?.get(HEAD_HEADER) ?? '')
    const { fn, method, path, query, deadlineMs } = head
    if (message.data.length > LIMITS.natsBodyBytesMax) {
      throw new Fault(
        'BODY_TOO_LARGE',
        `over NATS a body has at most ${LIMITS.natsBodyBytesMax} bytes`,
      )
    }
    return this.#options.invoker.invoke({
      fn,
      method: method.toUpperCase(),
      path,
      query,
      headers: head.headers.flatMap(([name, value]) => [name.toLowerCase(), value]),
      body: Buffer.from(message.data),
      protocol: 'nats',
      requestId: randomUUID(),
      deadlineMs,
    })
  }
}

/** @throws Fault `REQUEST_INVALID` */
function parseHead(text: string): InvokeHead {
  let head: unknown
  try {
    head = JSON.parse(text)
  } catch {
    head = undefined
  }
  if (!headValidator.Check(head)) {
    throw new Fault('REQUEST_INVALID', `header ${HEAD_HEADER} is missing or wrong`)
  }
  const fields = [head.method, head.path, head.query, ...head.headers.flat()]
  if (fields.some((field) => field.includes('\n'))) {
    throw new Fault('REQUEST_INVALID', 'no field may hold a line feed')
  }
  return head
}

function pairs(headers: HeaderList): [string, string][] {
  const list: [string, string][] = []
  for (let at = 0; at + 1 < headers.length; at += 2) {
    list.push([headers[at] ?? '', headers[at + 1] ?? ''])
  }
  return list
}

async function collect({ body }: Result): Promise<Uint8Array> {
  if (body instanceof Uint8Array) {
    if (body.length > LIMITS.natsBodyBytesMax) throw tooLarge()
    return body
  }
  const chunks: Buffer[] = []
  let bytes = 0
  // Leaving the loop early destroys the stream, which cancels the call.
  for await (const chunk of body) {
    const part: Buffer = Buffer.from(chunk)
    bytes += part.length
    if (bytes > LIMITS.natsBodyBytesMax) throw tooLarge()
    chunks.push(part)
  }
  return Buffer.concat(chunks)
}

function tooLarge(): Fault {
  return new Fault(
    'FUNCTION_OUTPUT_TOO_LARGE',
    `over NATS an answer has at most ${LIMITS.natsBodyBytesMax} bytes; call the node itself for more`,
  )
}
