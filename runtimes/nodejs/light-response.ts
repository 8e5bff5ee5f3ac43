import { delegate } from './delegate.ts'
import { hasFields } from './guards.ts'

const RealResponse = globalThis.Response

type HeadersGiven = Init['headers']
type Init = NonNullable<ConstructorParameters<typeof Response>[1]>

interface Parts {
  readonly status: number
  readonly head: string
  readonly body: string | Uint8Array | undefined
}

type SimpleBody = string | Uint8Array | undefined

/**
 * A `Response` that costs next to nothing when it is made of text or bytes and then returned.
 *
 * Whatever else is asked of it is answered by a real one, made on demand; what is not simple is a real one from the start.
 */
export class LightResponse {
  readonly #body: SimpleBody
  readonly #init: Init | undefined
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
    this.#body = simple
    this.#init = init
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
    if (!hasFields(value) || !(#init in value) || value.#real !== undefined) return undefined
    const init = value.#init
    const text = typeof value.#body === 'string'
    return { status: init?.status ?? 200, head: headOf(init?.headers, text), body: value.#body }
  }

  static realOf(value: object): object {
    if (!(#init in value)) return value
    return (value.#real ??= new RealResponse(copyOf(value.#body), value.#init))
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

function headOf(given: HeadersGiven, text: boolean): string {
  if (given === undefined) return text ? TEXT_HEAD : ''
  let head = ''
  let typed = false
  const pairs = given instanceof Headers || Array.isArray(given) ? given : Object.entries(given)
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

function carefulHead(given: HeadersGiven, text: boolean): string {
  const headers = new Headers(given)
  if (text && !headers.has('content-type')) headers.set('content-type', 'text/plain;charset=UTF-8')
  return headersHead(headers)
}

/** Null: no simple body. */
function simpleBody(body: unknown): SimpleBody | null {
  if (typeof body === 'string' || body instanceof Uint8Array) return body
  if (body === undefined || body === null) return undefined
  return body instanceof ArrayBuffer ? new Uint8Array(body) : null
}

function copyOf(body: SimpleBody): string | Uint8Array<ArrayBuffer> | undefined {
  return body instanceof Uint8Array ? new Uint8Array(body) : body
}

const NO_BODY_STATUS: ReadonlySet<number> = new Set([101, 204, 205, 304])

function isSimple(init: Init | undefined, body: SimpleBody): boolean {
  if (init === undefined) return true
  const { status } = init
  if (status === undefined) return true
  if (!Number.isInteger(status) || status < 200 || status > 599) return false
  return body === undefined || !NO_BODY_STATUS.has(status)
}
