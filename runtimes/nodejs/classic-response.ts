import { AsyncResource } from 'node:async_hooks'
import { STATUS_CODES } from 'node:http'
import { Writable } from 'node:stream'
import type { Call } from './call.ts'
import type { ClassicRequest } from './classic-request.ts'
import { isUnused, LazyWritable } from './lazy-streams.ts'

type HeaderValue = string | readonly string[]
type HeaderInput = string | number | string[]
type Done = (error?: Error | null) => void

const TEXT = 'text/plain; charset=utf-8'
const HTML = 'text/html; charset=utf-8'
const JSON_TYPE = 'application/json; charset=utf-8'
const TEXT_HEAD = `content-type\n${TEXT}`
const JSON_HEAD = `content-type\n${JSON_TYPE}`

const SHORT_TYPES: Readonly<Record<string, string>> = {
  json: JSON_TYPE,
  html: HTML,
  text: TEXT,
  txt: TEXT,
  xml: 'application/xml; charset=utf-8',
  css: 'text/css; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  gif: 'image/gif',
  webp: 'image/webp',
  pdf: 'application/pdf',
  bin: 'application/octet-stream',
}

/** The answer of the classic contract: a writable stream of the body, with what Express adds. */
export class ClassicResponse extends LazyWritable {
  statusCode = 200
  locals: Record<string, unknown> = {}
  /** The function returned a promise: when that settles, it has let go of the call. */
  promised = false
  readonly req: ClassicRequest
  readonly #call: Call
  #headers: Map<string, HeaderValue> | undefined
  #sent = false

  static {
    // Answers given as a whole pass by the stream's own bookkeeping.
    const ended = Object.getOwnPropertyDescriptor(Writable.prototype, 'writableEnded')
    Object.defineProperty(this.prototype, 'writableEnded', {
      get(this: ClassicResponse) {
        return this.#sent || ended?.get?.call(this) === true
      },
    })
  }

  constructor(call: Call, req: ClassicRequest) {
    super()
    this.#call = call
    this.req = req
  }

  get headersSent(): boolean {
    return this.#sent || this.#call.started || this.#call.ended
  }

  /** As in Express: text, bytes, or a value that becomes JSON. */
  send(body?: unknown): this {
    if (typeof body === 'string') return this.#whole(body, TEXT_HEAD)
    if (body === undefined || body === null) return this.#whole('', '')
    if (body instanceof Uint8Array) {
      return this.#whole(body, 'content-type\napplication/octet-stream')
    }
    return this.json(body)
  }

  json(value: unknown): this {
    return this.#whole(JSON.stringify(value) ?? '', JSON_HEAD)
  }

  status(code: number): this {
    this.statusCode = code
    return this
  }

  sendStatus(code: number): this {
    return this.status(code).send(STATUS_CODES[code] ?? String(code))
  }

  set(name: string | Readonly<Record<string, HeaderInput>>, value?: HeaderInput): this {
    if (typeof name === 'string') return this.setHeader(name, value ?? '')
    for (const [each, input] of Object.entries(name)) this.setHeader(each, input)
    return this
  }

  header(name: string | Readonly<Record<string, HeaderInput>>, value?: HeaderInput): this {
    return this.set(name, value)
  }

  /** @throws TypeError when name or value cannot be a header */
  setHeader(name: string, value: HeaderInput): this {
    if (this.headersSent) throw alreadySent()
    const key = name.toLowerCase()
    const checked = Array.isArray(value) ? value.map((each) => check(key, each)) : check(key, value)
    ;(this.#headers ??= new Map()).set(key, checked)
    return this
  }

  append(name: string, value: HeaderInput): this {
    const before = this.#headers?.get(name.toLowerCase())
    const added = Array.isArray(value) ? value.map(String) : [String(value)]
    return this.setHeader(name, before === undefined ? added : [before, added].flat(2))
  }

  get(name: string): HeaderValue | undefined {
    return this.#headers?.get(name.toLowerCase())
  }

  getHeader(name: string): HeaderValue | undefined {
    return this.get(name)
  }

  hasHeader(name: string): boolean {
    return this.#headers?.has(name.toLowerCase()) ?? false
  }

  getHeaders(): Record<string, HeaderValue> {
    return Object.fromEntries(this.#headers ?? [])
  }

  removeHeader(name: string): void {
    this.#headers?.delete(name.toLowerCase())
  }

  /** A full content type, or a short name such as `json`. */
  type(name: string): this {
    const full = name.includes('/') ? name : SHORT_TYPES[name.replace(/^\./, '')]
    return this.setHeader('content-type', full ?? 'application/octet-stream')
  }

  contentType(name: string): this {
    return this.type(name)
  }

  location(url: string): this {
    return this.setHeader('location', url)
  }

  redirect(status: number | string, url?: string): this {
    const code = typeof status === 'number' ? status : 302
    const target = typeof status === 'string' ? status : (url ?? '/')
    return this.status(code)
      .location(target)
      .send(`${STATUS_CODES[code]}. Redirecting to ${target}`)
  }

  writeHead(
    status: number,
    ...rest: readonly (string | Readonly<Record<string, HeaderInput>>)[]
  ): this {
    this.statusCode = status
    const headers = rest.findLast((each) => isHeaders(each))
    if (headers !== undefined) this.set(headers)
    return this
  }

  flushHeaders(): void {
    if (!this.headersSent) this.#call.start(this.statusCode, this.#head(''))
  }

  /**
   * Once nobody waits any more, what is written is dropped at once: a function that goes on all the same would fill its handler's memory
   * with copies of it. Writing after the end stays the error that it is in every stream.
   */
  override write(chunk: unknown, encoding?: BufferEncoding | Done, done?: Done): boolean {
    const after = typeof encoding === 'function' ? encoding : done
    if (this.#call.wanted || this.writableEnded) {
      const piled = this.writableLength > 0
      const goOn =
        typeof encoding === 'string'
          ? super.write(chunk, encoding, after)
          : super.write(chunk, after)
      if (!goOn) this.#call.checkUnsent(this.writableLength, piled)
      return goOn
    }
    // Not at once: a function that waits for it must not turn for ever.
    if (after !== undefined) setImmediate(after, new Error('the call has ended'))
    return false
  }

  override end(chunk?: unknown, encoding?: unknown, done?: unknown): this {
    if (this.#sent) return this
    this.#call.release()
    const plain = typeof chunk === 'string' || chunk instanceof Uint8Array
    const nothingWritten = isUnused(this) || this.writableLength === 0
    if (plain && encoding === undefined && !this.headersSent && nothingWritten) {
      return this.#whole(chunk, '')
    }
    const after = [chunk, encoding, done].find((each) => isDone(each))
    if (typeof chunk === 'string' && isEncoding(encoding)) super.end(chunk, encoding, after)
    else if (plain) super.end(chunk, after)
    else super.end(after)
    return this
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.flushHeaders()
    this.#call.write(chunk, AsyncResource.bind(done))
  }

  override _final(done: () => void): void {
    if (this.#call.started) this.#call.finish()
    else this.#call.answer(this.statusCode, this.#head(''), undefined)
    done()
  }

  /**
   * The call was cancelled or its connection lost.
   *
   * A function without a promise lets go of the call by the end of its answer; one that listens for 'close', or has begun to
   * write, is told by this, and mostly does not care to end what nobody reads.
   */
  aborted(): void {
    const told = this.listenerCount('close') + this.req.listenerCount('close') > 0
    this.req.destroy()
    this.destroy()
    if (!this.promised && (told || this.#call.started)) this.#call.release()
  }

  #whole(body: string | Uint8Array, head: string): this {
    if (this.headersSent) throw alreadySent()
    const content = this.statusCode === 204 || this.statusCode === 304 ? '' : body
    const type = head === TEXT_HEAD && looksLikeHtml(body) ? `content-type\n${HTML}` : head
    const heard = this.listenerCount('finish') + this.listenerCount('close') > 0
    // In the function's own async context: the socket calls back in none.
    const finished = heard
      ? AsyncResource.bind(() => process.nextTick(() => this.#finished()))
      : undefined
    this.#call.answer(this.statusCode, this.#head(type), content, finished)
    this.#sent = true
    return this
  }

  #finished(): void {
    // An answer that was cut off has its 'close' already.
    if (!isUnused(this) && this.destroyed) return
    this.emit('finish')
    this.emit('close')
  }

  #head(fallback: string): string {
    const headers = this.#headers
    if (headers === undefined) return fallback
    const lines: string[] = []
    for (const [name, value] of headers) {
      if (typeof value === 'string') lines.push(name, value)
      else for (const each of value) lines.push(name, each)
    }
    if (fallback !== '' && !headers.has('content-type')) lines.push(fallback)
    return lines.join('\n')
  }
}

function isDone(value: unknown): value is () => void {
  return typeof value === 'function'
}

function isEncoding(value: unknown): value is BufferEncoding {
  return typeof value === 'string' && Buffer.isEncoding(value)
}

function isHeaders(value: unknown): value is Readonly<Record<string, HeaderInput>> {
  return typeof value === 'object' && value !== null
}

function looksLikeHtml(body: string | Uint8Array): boolean {
  return typeof body === 'string' && /^\s*<(?:!doctype html|html)/i.test(body)
}

function check(name: string, value: string | number): string {
  const text = String(value)
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) {
    throw new TypeError(`"${name}" cannot be the name of a header`)
  }
  // oxlint-disable-next-line no-control-regex -- these are the characters that would break the head
  if (/[\r\n\0]/.test(text)) throw new TypeError(`the value of the header "${name}" has a line end`)
  return text
}

function alreadySent(): Error {
  return new Error('the answer has been sent already: headers and body cannot be set any more')
}
