import type { BodySink } from './body-sink.ts'
import type { Call } from './call.ts'
import { collect } from './classic.ts'
import { delegate } from './delegate.ts'
import { hasFields } from './guards.ts'
import { bodyBytes, bodyText } from './whole-body.ts'

const RealRequest = globalThis.Request
const realFetch = globalThis.fetch

/**
 * A `Request` that costs next to nothing as long as only method, url, headers, signal and the body are asked for.
 *
 * Everything else is answered by a real one, made on demand. (A real `Request` takes 10 µs and more to make, more than the whole rest
 * of a call.)
 */
export class LightRequest {
  readonly #call: Call
  #headers: Headers | undefined
  #url: string | undefined
  #body: ReadableStream<Uint8Array> | null | undefined
  #used = false
  #real: Request | undefined

  constructor(call: Call) {
    this.#call = call
  }

  /** The real request behind a light one; any other value as it is. */
  static realOf<T>(value: T): T | Request {
    return hasFields(value) && #call in value ? value.#materialise() : value
  }

  get method(): string {
    return this.#call.lines[0] ?? ''
  }

  get url(): string {
    return (this.#url ??= urlOf(this.#call))
  }

  get headers(): Headers {
    return this.#real?.headers ?? (this.#headers ??= headersOf(this.#call.lines))
  }

  get signal(): AbortSignal {
    return this.#call.signal
  }

  get body(): ReadableStream<Uint8Array> | null {
    if (this.#real !== undefined) return this.#real.body
    return (this.#body ??= this.#ownBody())
  }

  get bodyUsed(): boolean {
    if (this.#real !== undefined) return this.#real.bodyUsed
    return this.#used || (this.#body?.locked ?? false)
  }

  async text(): Promise<string> {
    const { whole } = this.#call
    if (!this.#untouched() || whole === undefined) return bodyText(await this.#bytes())
    this.#used = true
    return bodyText(whole)
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text())
  }

  async bytes(): Promise<Uint8Array> {
    return new Uint8Array(await this.#bytes())
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return new Uint8Array(await this.#bytes()).buffer
  }

  #ownBody(): ReadableStream<Uint8Array> | null {
    if (this.#call.whole === '') return null
    // The body goes to one reader: a stream of its rest would leave the first one waiting for ever.
    if (this.#used) return new ReadableStream({ start: (controller) => controller.close() })
    return new BodySource(this.#call).stream()
  }

  #untouched(): boolean {
    return !this.#used && this.#body === undefined && this.#real === undefined
  }

  async #bytes(): Promise<Buffer> {
    if (this.#used) throw new TypeError('Body is unusable: Body has already been read')
    this.#used = true
    if (this.#real !== undefined) return Buffer.from(await this.#real.arrayBuffer())
    if (this.#body !== undefined) return Buffer.from(await new Response(this.#body).arrayBuffer())
    const call = this.#call
    if (call.whole !== undefined) return bodyBytes(call.whole)
    const collected = Promise.withResolvers<Buffer>()
    collect(call, collected.resolve, collected.reject)
    return collected.promise
  }

  #materialise(): Request {
    if (this.#real !== undefined) return this.#real
    const { method } = this
    const bodiless = method === 'GET' || method === 'HEAD'
    const body = bodiless || this.#used ? null : this.body
    const { headers, signal } = this
    return (this.#real = new RealRequest(this.url, {
      method,
      headers,
      signal,
      body,
      duplex: 'half',
    }))
  }
}

delegate(LightRequest.prototype, RealRequest.prototype, (value) => LightRequest.realOf(value))

/** Makes `new Request(request)` and `fetch(request)` take light requests as well. */
export function installLightRequest(): void {
  globalThis.Request = new Proxy(RealRequest, {
    construct(target, values: readonly unknown[], self) {
      const [input, ...rest] = values
      const made: unknown = Reflect.construct(target, [LightRequest.realOf(input), ...rest], self)
      return Object(made)
    },
  })
  globalThis.fetch = async (input, init) => realFetch(LightRequest.realOf(input), init)
}

function urlOf(call: Call): string {
  const { lines } = call
  const query = lines[2] ?? ''
  const host = call.header('host') ?? 'localhost'
  const path = `${lines[1] || '/'}${query === '' ? '' : `?${query}`}`
  return URL.canParse(`http://${host}${path}`) ? `http://${host}${path}` : `http://localhost${path}`
}

function headersOf(lines: readonly string[]): Headers {
  const headers = new Headers()
  for (let at = 3; at + 1 < lines.length; at += 2) {
    try {
      headers.append(lines[at] ?? '', lines[at + 1] ?? '')
    } catch {
      // Metadata of other protocols may hold what no HTTP header can; it is left out here.
    }
  }
  return headers
}

/** The body as a stream that asks the agent for more only when its reader does. */
class BodySource implements BodySink {
  readonly #call: Call
  readonly #waiting: Uint8Array<ArrayBuffer>[] = []
  #over = false
  #lost: Error | undefined
  #wake: (() => void) | undefined

  constructor(call: Call) {
    this.#call = call
    if (call.whole === undefined) {
      call.readInto(this)
    } else {
      this.#waiting.push(new Uint8Array(bodyBytes(call.whole)))
      this.#over = true
    }
  }

  chunk(bytes: Buffer): void {
    // Memory of its own: the reader may hand it on for good.
    this.#waiting.push(new Uint8Array(bytes))
    this.#wake?.()
  }

  end(): void {
    this.#over = true
    this.#wake?.()
  }

  lost(error: Error): void {
    this.#lost = error
    this.#wake?.()
  }

  async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    while (this.#waiting.length === 0 && !this.#over && this.#lost === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const bytes = this.#waiting.shift()
    if (bytes !== undefined) {
      controller.enqueue(bytes)
      this.#call.consumed(bytes.length)
    } else if (this.#lost === undefined) controller.close()
    else controller.error(this.#lost)
  }

  stream(): ReadableStream<Uint8Array> {
    return new ReadableStream({ pull: (controller) => this.pull(controller) }, { highWaterMark: 0 })
  }
}
