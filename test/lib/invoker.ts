import { once } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Body, CallerSignal, Invocation, Invoker, Result } from '#agent/invoke/index.ts'
import { Fault, isFaultCode } from '#shared/fault.ts'

export interface SeenCall {
  readonly invocation: Invocation
  readonly signal: AbortSignal | undefined
}

type Behaviour = (invocation: Invocation, signal: AbortSignal | undefined) => Promise<Result>

const ok = (body: Body, headers: readonly string[] = []): Result => ({ status: 200, headers, body })

async function whole(body: Body): Promise<Buffer> {
  if (Buffer.isBuffer(body)) return body
  const chunks: Buffer[] = []
  for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** The number that a call's query names, e.g. `ms=50`. */
function numberOf(invocation: Invocation, key: string, otherwise: number): number {
  const value = new URLSearchParams(invocation.query).get(key)
  return value === null ? otherwise : Number(value)
}

const behaviours: Record<string, Behaviour> = {
  /** The body back, whole. */
  echo: async ({ body }) => ok(Buffer.isBuffer(body) ? body : await whole(body)),
  'site/a/b/echo': async ({ body }) => ok(await whole(body)),
  /** Everything the function was told, as JSON. */
  inspect: async (invocation) => {
    const body = await whole(invocation.body)
    const { fn, method, path, query, headers, protocol, requestId, deadlineMs } = invocation
    const told = {
      fn,
      method,
      path,
      query,
      headers,
      protocol,
      requestId,
      deadlineMs,
      body: body.toString(),
    }
    return ok(Buffer.from(JSON.stringify(told)), ['content-type', 'application/json'])
  },
  /** Answers with the status, headers and content type that its query names. */
  status: async (invocation) => {
    const query = new URLSearchParams(invocation.query)
    const status = Number(query.get('status') ?? 200)
    const headers = query.getAll('header').flatMap((field) => {
      const equals = field.indexOf('=')
      return [field.slice(0, equals), field.slice(equals + 1)]
    })
    return { status, headers, body: Buffer.from(query.get('body') ?? '') }
  },
  /** Answers after `ms`, unless the caller goes first. */
  slow: async (invocation, signal) => {
    await sleep(numberOf(invocation, 'ms', 100), undefined, { signal }).catch(() => {
      throw new Fault('CALLER_GONE', 'the caller has gone')
    })
    return ok(Buffer.from('slept'))
  },
  /** `bytes` bytes that tell their place. */
  bytes: async (invocation) => ok(patterned(numberOf(invocation, 'bytes', 1000))),
  /** The body back as a stream, as it comes. */
  stream: async ({ body }) => {
    const out = new PassThrough()
    const source = Buffer.isBuffer(body) ? Readable.from([body]) : body
    source.on('error', (error) => out.destroy(error))
    source.pipe(out)
    return ok(out, ['content-type', 'application/octet-stream'])
  },
  /** `count` pieces of `bytes` bytes, `ms` apart, at the reader's pace; `fail=1` breaks off after them. */
  pieces: async (invocation, signal) => ok(Readable.from(pieces(invocation, signal))),
  /** `count` server-sent events of `bytes` bytes, `ms` apart, at the reader's pace, once the body has come; `then=fail` breaks off after them, `then=wait` never ends. */
  events: async (invocation, signal) => {
    await whole(invocation.body)
    return ok(Readable.from(events(invocation, signal), { highWaterMark: 1 }), [
      'content-type',
      'text/event-stream; charset=utf-8',
      'cache-control',
      'no-cache',
    ])
  },
  /** Takes one piece of the body, no more, and answers after `ms`. */
  sip: async (invocation) => {
    if (!Buffer.isBuffer(invocation.body)) await once(invocation.body, 'readable')
    await sleep(numberOf(invocation, 'ms', 100))
    return ok(Buffer.from('enough'))
  },
  /** Fails with the fault that its query names. */
  fault: async (invocation) => {
    const query = new URLSearchParams(invocation.query)
    const code = query.get('code') ?? ''
    if (!isFaultCode(code)) throw new TypeError('a bug with a secret in its message')
    const retryAfterMs = query.has('retryAfterMs')
      ? numberOf(invocation, 'retryAfterMs', 0)
      : undefined
    throw new Fault(code, `as asked: ${code}`, { retryAfterMs })
  },
}

/** What `pieces` and `events` have made so far, in all calls: tells whether they are made to wait. */
export const produced = { bytes: 0, events: 0 }

async function* events(
  invocation: Invocation,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const count = numberOf(invocation, 'count', 3)
  const bytes = numberOf(invocation, 'bytes', 5)
  const everyMs = numberOf(invocation, 'ms', 0)
  const afterwards = new URLSearchParams(invocation.query).get('then')
  for (let index = 0; index < count; index++) {
    if (everyMs > 0) await sleep(everyMs, undefined, { signal })
    produced.events++
    yield Buffer.from(`: a comment\nid: ${index}\ndata: ${String(index).padStart(bytes, '-')}\n\n`)
  }
  if (afterwards === 'fail') throw new Fault('FUNCTION_EXITED', 'the function died')
  if (afterwards === 'wait') await once(signal ?? new EventTarget(), 'abort')
}

async function* pieces(
  invocation: Invocation,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const count = numberOf(invocation, 'count', 3)
  const bytes = numberOf(invocation, 'bytes', 5)
  const everyMs = numberOf(invocation, 'ms', 0)
  for (let index = 0; index < count; index++) {
    if (everyMs > 0) await sleep(everyMs, undefined, { signal })
    produced.bytes += bytes
    yield Buffer.alloc(bytes, String(index % 10))
  }
  if (numberOf(invocation, 'fail', 0) === 1) throw new Fault('FUNCTION_EXITED', 'the function died')
}

/** Bytes whose value depends on their place, so that a block in the wrong place is seen. */
export function patterned(bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes)
  for (let index = 0; index < bytes; index++) buffer[index] = (index * 7 + (index >> 8)) & 0xff
  return buffer
}

/** A real `Invoker` that runs its functions in this process: what a proxy sees of the agent. */
export class TestInvoker implements Invoker {
  /** Calls so far, oldest first. */
  readonly seen: SeenCall[] = []
  /** Calls that were accepted for the background. */
  readonly accepted: Invocation[] = []
  /** Calls that have begun and not ended. */
  running = 0

  match(path: string): { fn: string; rest: string } | undefined {
    for (const fn of Object.keys(behaviours).toSorted((a, b) => b.length - a.length)) {
      if (!path.startsWith(fn)) continue
      const rest = path.slice(fn.length)
      if (rest === '' || rest.startsWith('/')) return { fn, rest }
    }
    return undefined
  }

  names(): readonly string[] {
    return Object.keys(behaviours).toSorted()
  }

  async invoke(invocation: Invocation, signal?: AbortSignal): Promise<Result> {
    const behaviour = this.#behaviour(invocation.fn)
    this.seen.push({ invocation, signal })
    this.running++
    try {
      return await behaviour(invocation, signal)
    } finally {
      this.running--
    }
  }

  start(
    invocation: Invocation,
    caller: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (error: unknown) => void,
  ): void {
    const controller = new AbortController()
    // For as long as the answer is a stream, too.
    caller?.addEventListener('abort', { handleEvent: () => controller.abort(caller.reason) })
    this.invoke(invocation, controller.signal).then(resolve, reject)
  }

  async accept(invocation: Invocation): Promise<void> {
    this.#behaviour(invocation.fn)
    this.accepted.push(invocation)
  }

  /** The last call's signal, once it has aborted. */
  async aborted(): Promise<AbortSignal> {
    const signal = this.seen.at(-1)?.signal
    if (signal === undefined) throw new Error('no call with a signal has come')
    if (!signal.aborted) await once(signal, 'abort')
    return signal
  }

  #behaviour(fn: string): Behaviour {
    const behaviour = behaviours[fn]
    if (behaviour === undefined) {
      throw new Fault('FUNCTION_UNKNOWN', `function ${fn} is not here`, { fn })
    }
    return behaviour
  }
}
