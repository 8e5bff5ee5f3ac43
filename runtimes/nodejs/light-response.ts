import { tookBytes } from './body-memory.ts'
import { delegate } from './delegate.ts'
import { hasFields } from './guards.ts'

const RealResponse = globalThis.Response

type HeadersGiven = NonNullable<Init['headers']>
type Init = NonNullable<ConstructorParameters<typeof Response>[1]>

interface Parts {
  readonly status: number
  readonly statusText: string
  readonly head: string
  readonly body: SimpleBody
}

type SimpleBody = string | Uint8Array<ArrayBuffer> | undefined

/**
 * A `Response` that costs next to nothing when it is made of text or bytes and then returned.
 *
 * Whatever else is asked of it is answered by a real one, made on demand; what is not simple is a real one from the start.
 *
 * Like a real one it takes copies of all it is made of: it is sent some time after the function has returned it, and by then the function,
 * called again, may have filled the same bytes or headers for another caller.
 */
export class LightResponse {
  readonly #parts: Parts | undefined
  #real: Response | undefined

  // oxlint-disable-next-line consistent-return -- the caller gets the real thing where this one will not do
  constructor(body?: unknown, init?: Init) {
    const simple = simpleBody(body)
    if (new.target !== LightResponse || simple === null || !isSimple(init, simple)) {
      const target = new.target === LightResponse ? RealResponse : new.target
      const made: unknown = Reflect.construct(RealResponse, [body, init], target)
      // oxlint-disable-next-line no-constructor-return -- the caller gets the real thing
      return Object(made)
    }
    this.#parts = {
      status: init?.status ?? 200,
      statusText: init?.statusText ?? '',
      head: headOf(init?.headers, typeof simple === 'string'),
      body: simple,
    }
  }

  static [Symbol.hasInstance](value: unknown): boolean {
    return value instanceof RealResponse
  }

  static json(value: unknown, init?: Init): LightResponse {
    const text = JSON.stringify(value)
    if (text === undefined) throw new TypeError('the value has no JSON form')
    const headers = new Headers(init?.headers)
    if (!headers.has('content-type')) headers.set('content-type', 'application/json')
    return new LightResponse(text, { ...init, headers })
  }

  static error(): Response {
    return RealResponse.error()
  }

  static redirect(...values: Parameters<typeof Response.redirect>): Response {
    return RealResponse.redirect(...values)
  }

  /** What to send for a light response that nobody has looked into; undefined for anything else. */
  static partsOf(value: unknown): Parts | undefined {
    if (!hasFields(value) || !(#parts in value) || value.#real !== undefined) return undefined
    return value.#parts
  }

  static realOf(value: object): object {
    if (!(#parts in value) || value.#parts === undefined) return value
    const { status, statusText, head, body } = value.#parts
    return (value.#real ??= new RealResponse(body, { status, statusText, headers: pairsOf(head) }))
  }
}

delegate(LightResponse.prototype, RealResponse.prototype, (value) => LightResponse.realOf(value))

/** Makes `new Response(...)` light ones. */
export function installLightResponse(): void {
  Object.assign(globalThis, { Response: LightResponse })
}

/** The head of a response with these headers. */
export function headersHead(headers: Headers): string {
  const lines: string[] = []
  for (const [name, value] of headers) lines.push(name, value)
  return lines.join('\n')
}

const TEXT_HEAD = 'content-type\ntext/plain;charset=UTF-8'
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
// What makes `Headers` trim or refuse a value is left to it.
const VALUE = /^[!-~](?:[ -~]*[!-~])?$/

function headOf(init: HeadersGiven | undefined, text: boolean): string {
  if (init === undefined) return text ? TEXT_HEAD : ''
  // What gives its fields only once is read only once.
  const given = isForeignIterable(init) ? [...init] : init
  let head = ''
  let typed = false
  const pairs = Symbol.iterator in given ? given : Object.entries(given)
  for (const [name, value] of pairs) {
    if (typeof name !== 'string' || typeof value !== 'string') return carefulHead(given, text)
    if (!NAME.test(name) || !VALUE.test(value)) return carefulHead(given, text)
    const lower = name.toLowerCase()
    if (lower === 'content-type') typed = true
    head += head === '' ? `${lower}\n${value}` : `\n${lower}\n${value}`
  }
  if (!text || typed) return head
  return head === '' ? TEXT_HEAD : `${head}\n${TEXT_HEAD}`
}

/** An iterable that is neither a list nor `Headers`: perhaps an iterator. */
function isForeignIterable(given: HeadersGiven): given is Extract<HeadersGiven, unknown[]> {
  return Symbol.iterator in given && !Array.isArray(given) && !(given instanceof Headers)
}

function carefulHead(given: HeadersGiven, text: boolean): string {
  const headers = new Headers(given)
  if (text && !headers.has('content-type')) headers.set('content-type', 'text/plain;charset=UTF-8')
  return headersHead(headers)
}

/** The lines of a head by twos: name, value. */
function pairsOf(head: string): [string, string][] {
  if (head === '') return []
  const pairs: [string, string][] = []
  const lines = head.split('\n')
  for (let at = 0; at < lines.length; at += 2) pairs.push([lines[at] ?? '', lines[at + 1] ?? ''])
  return pairs
}

/** Null: no simple body. */
function simpleBody(body: unknown): SimpleBody | null {
  if (typeof body === 'string') return body
  if (body === undefined || body === null) return undefined
  if (body instanceof Uint8Array) return copyOf(body)
  return body instanceof ArrayBuffer ? copyOf(new Uint8Array(body)) : null
}

function copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  tookBytes(bytes.length)
  // Small ones come from Node's pool, which takes a tenth of the time of memory of their own; nobody else gets to see them.
  return Buffer.from(bytes)
}

const NO_BODY_STATUS: ReadonlySet<number> = new Set([101, 204, 205, 304])

function isSimple(init: Init | undefined, body: SimpleBody): boolean {
  if (init === undefined) return true
  const { status } = init
  if (status === undefined) return true
  if (!Number.isInteger(status) || status < 200 || status > 599) return false
  return body === undefined || !NO_BODY_STATUS.has(status)
}
