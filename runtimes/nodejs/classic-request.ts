import { parse, type ParsedUrlQuery } from 'node:querystring'
import type { Call } from './call.ts'
import { LazyReadable } from './lazy-streams.ts'
import { bodyBytes, bodyText, type WholeBody } from './whole-body.ts'

type Headers = Record<string, string | string[] | undefined>

/** The request of the classic contract: a readable stream of the body, with what Express adds. */
export class ClassicRequest extends LazyReadable {
  params: Record<string, string> = {}
  readonly #call: Call
  readonly #whole: WholeBody
  #body: unknown
  #headers: Headers | undefined
  #query: ParsedUrlQuery | undefined
  #raw: Buffer | undefined
  #url: string | undefined

  constructor(call: Call, whole: WholeBody) {
    super()
    this.#call = call
    this.#whole = whole
  }

  override _read(): void {
    const raw = this.rawBody
    if (raw.length > 0) this.push(raw)
    this.push(null)
  }

  /** The body as text, `''` when there is none; what a function puts there itself stays. */
  get body(): unknown {
    return (this.#body ??= bodyText(this.#whole))
  }

  set body(value: unknown) {
    this.#body = value
  }

  /** The body's bytes. */
  get rawBody(): Buffer {
    return (this.#raw ??= bodyBytes(this.#whole))
  }

  get method(): string {
    return this.#call.lines[0] ?? ''
  }

  /** What follows the function's name; `/` when nothing does. */
  get path(): string {
    return this.#call.lines[1] || '/'
  }

  get url(): string {
    const query = this.#call.lines[2] ?? ''
    return (this.#url ??= query === '' ? this.path : `${this.path}?${query}`)
  }

  set url(value: string) {
    this.#url = value
  }

  get originalUrl(): string {
    return this.url
  }

  get query(): ParsedUrlQuery {
    return (this.#query ??= parse(this.#call.lines[2] ?? ''))
  }

  /** By lower-case name; a repeated field's values are joined by a comma, of `cookie` by a semicolon, those of `set-cookie` are a list. */
  get headers(): Headers {
    return (this.#headers ??= headersOf(this.#call.lines))
  }

  get rawHeaders(): string[] {
    return this.#call.lines.slice(3)
  }

  get httpVersion(): string {
    return '1.1'
  }

  get hostname(): string | undefined {
    return this.get('host')?.replace(/:\d+$/, '')
  }

  /** Milliseconds that were left for the call when it arrived; 0: no limit. */
  get deadlineMs(): number {
    return this.#call.deadlineMs
  }

  get requestId(): string {
    return this.#call.header('shoal-request-id') ?? ''
  }

  /** A header's value, by its name in any case. */
  get(name: string): string | undefined {
    const key = name.toLowerCase()
    if (key === 'referer' || key === 'referrer') {
      return text(this.headers['referer'] ?? this.headers['referrer'])
    }
    // A plain object has more than fields: `constructor`.
    return Object.hasOwn(this.headers, key) ? text(this.headers[key]) : undefined
  }

  header(name: string): string | undefined {
    return this.get(name)
  }

  /** The content type's short or full name when it is one of `types`, else false. */
  is(...types: readonly string[]): string | false {
    const own = (this.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
    if (own === '') return false
    for (const type of types.flat()) {
      const pattern = type.includes('/') ? type : `*/${type}`
      const [left, right] = pattern.split('/')
      const [ownLeft, ownRight] = own.split('/')
      if ((left === '*' || left === ownLeft) && (right === '*' || right === ownRight)) return type
    }
    return false
  }
}

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value
}

function headersOf(lines: readonly string[]): Headers {
  const headers: Headers = {}
  for (let at = 3; at + 1 < lines.length; at += 2) {
    const name = lines[at] ?? ''
    const value = lines[at + 1] ?? ''
    const before = Object.hasOwn(headers, name) ? headers[name] : undefined
    if (name === 'set-cookie') headers[name] = Array.isArray(before) ? [...before, value] : [value]
    else if (before === undefined) headers[name] = value
    else headers[name] = `${text(before)}${name === 'cookie' ? ';' : ','} ${value}`
  }
  return headers
}
