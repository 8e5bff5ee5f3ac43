import { format } from 'node:util'
import type { Call } from './call.ts'
import { isThenable } from './guards.ts'
import { describe, KIND, LEVEL } from './protocol.ts'
import { LightRequest } from './light-request.ts'
import { headersHead, LightResponse } from './light-response.ts'

/** What a native function learns about its call besides the request. */
export interface Context {
  readonly requestId: string
  /** Milliseconds that were left when the call arrived; undefined: no limit. */
  readonly deadlineMs: number | undefined
  /** Aborts when the caller has gone or the deadline has passed. */
  readonly signal: AbortSignal
  readonly fn: string
  readonly release: string
  /** What the call came by: `http`, `coap`, `grpc`, `nats`, `async`. */
  readonly protocol: string
  readonly log: ContextLog
}

export type LogMethod = (...values: unknown[]) => void
export type ContextLog = Readonly<Record<'debug' | 'info' | 'warn' | 'error', LogMethod>>
export type NativeFunction = (request: LightRequest, context: Context) => unknown

type LogLine = (call: Call, level: number, text: string) => void

class CallContext implements Context {
  readonly fn: string
  readonly release: string
  readonly #call: Call

  constructor(call: Call, fn: string, release: string) {
    this.#call = call
    this.fn = fn
    this.release = release
  }

  get requestId(): string {
    return this.#call.header('shoal-request-id') ?? ''
  }

  get protocol(): string {
    return this.#call.header('shoal-protocol') ?? ''
  }

  get deadlineMs(): number | undefined {
    return this.#call.deadlineMs === 0 ? undefined : this.#call.deadlineMs
  }

  get signal(): AbortSignal {
    return this.#call.signal
  }

  get log(): ContextLog {
    const at =
      (level: number): LogMethod =>
      (...values) =>
        logLine(this.#call, level, format(...values))
    return {
      debug: at(LEVEL.DEBUG),
      info: at(LEVEL.INFO),
      warn: at(LEVEL.WARN),
      error: at(LEVEL.ERROR),
    }
  }
}

let logLine: LogLine = () => undefined

/** Says where `context.log` writes to. */
export function setContextLog(line: LogLine): void {
  logLine = line
}

/** Serves calls by a function of the contract `(request, context) => Response`. */
export function nativeCaller(
  fn: NativeFunction,
  names: { readonly fn: string; readonly release: string },
): (call: Call) => void {
  const invoke = (call: Call): void => {
    try {
      const request = new LightRequest(call)
      const result = fn(request, new CallContext(call, names.fn, names.release))
      if (result instanceof Promise || isThenable(result)) {
        call.held = true
        result.then(
          (value) => respond(call, value),
          (error: unknown) => failed(call, error),
        )
      } else respond(call, result)
    } catch (error) {
      failed(call, error)
    }
  }
  return (call) => call.run(invoke)
}

function respond(call: Call, value: unknown): void {
  // The function is done: a cancelled call whose answer still waits for its caller ends by the CANCEL alone.
  call.held = false
  if (!call.wanted) {
    // What feeds its body has to stop.
    if (value instanceof Response) void value.body?.cancel().catch(() => undefined)
    call.release()
    return
  }
  const light = LightResponse.partsOf(value)
  if (light !== undefined) {
    call.answer(light.status, light.head, light.body)
    return
  }
  if (!(value instanceof Response)) {
    const got = value === null ? 'null' : typeof value
    call.fail(
      KIND.BAD_ANSWER,
      `the function returned ${got} in place of a Response; an ES module that answers by (req, res) says export const contract = 'classic'`,
    )
    return
  }
  stream(call, value).catch((error: unknown) => failed(call, error))
}

/** Sends a response whose body is a stream, no faster than the caller reads. */
async function stream(call: Call, response: Response): Promise<void> {
  const head = headersHead(response.headers)
  const { body, status } = response
  if (body === null) {
    call.answer(status, head, undefined)
    return
  }
  const reader = body.getReader()
  call.held = true
  const stopped = () => void call.release()
  call.onAbort = { aborted: (reason) => void reader.cancel(reason).then(stopped, stopped) }
  const first = await reader.read()
  if (!call.wanted) return
  if (first.done) {
    call.answer(status, head, undefined)
    return
  }
  const firstBytes = toBytes(first.value)
  const second = reader.read()
  if (await isOver(second)) {
    call.answer(status, head, firstBytes)
    return
  }
  call.start(status, head)
  await written(call, firstBytes)
  for (let part = await second; !part.done; part = await reader.read()) {
    if (!call.wanted) return
    await written(call, toBytes(part.value))
  }
  if (call.wanted) call.finish()
}

/** True when the stream's end is known by the end of this turn of the loop: then one frame will do. */
async function isOver(next: Promise<{ readonly done: boolean }>): Promise<boolean> {
  const turn = new Promise<undefined>((resolve) => {
    setImmediate(resolve, undefined)
  })
  try {
    return (await Promise.race([next, turn]))?.done === true
  } catch {
    // The one who awaits `next` for its value gets the error.
    return false
  }
}

async function written(call: Call, bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve) => {
    call.write(bytes, resolve)
  })
}

function toBytes(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk
  if (typeof chunk === 'string') return Buffer.from(chunk)
  throw new TypeError(`the body's stream gave a chunk of type ${typeof chunk}, no bytes`)
}

function failed(call: Call, error: unknown): void {
  const text = describe(error)
  // Behind the answer nobody can be told but the log.
  if (call.ended) logLine(call, LEVEL.ERROR, text)
  else if (!call.release()) call.fail(KIND.FUNCTION, text)
}
