import { ERROR, METHODS, METHODS_HTTP, TYPE } from 'undici/lib/llhttp/constants.js'
import wasm from 'undici/lib/llhttp/llhttp-wasm.js'

/** What llhttp calls while it executes; places are offsets in the bytes that `execute` was given. */
export interface LlhttpEvents {
  /** A piece of the target, of a field's name or of its value; a piece that `execute` ended in goes on in the next. */
  piece(kind: PieceKind, start: number, end: number): boolean
  headComplete(keepAlive: boolean): void
  body(start: number, end: number): void
}

export const PIECE = { target: 0, name: 1, value: 2 } as const
export type PieceKind = (typeof PIECE)[keyof typeof PIECE]

/** Bytes copied to the module's memory at once. */
export const EXECUTE_BYTES_MAX = 16 * 1024

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer }
  malloc(bytes: number): number
  llhttp_alloc(type: number): number
  llhttp_reset(parser: number): void
  llhttp_resume(parser: number): void
  llhttp_execute(parser: number, at: number, bytes: number): number
  llhttp_get_error_pos(parser: number): number
  llhttp_get_method(parser: number): number
  llhttp_get_http_major(parser: number): number
  llhttp_get_http_minor(parser: number): number
}

/** How an execution ended. `paused`: behind the head, or behind the whole message. */
export type Execution = 'more' | 'paused' | 'broken'

/**
 * llhttp, Node's own HTTP parser, in strict mode: its WebAssembly build, which is fuzzed and maintained with Node.
 *
 * One instance serves all connections: a parser is some 80 bytes of its memory. It pauses behind each head and behind
 * each message.
 */
export class Llhttp {
  /** How many bytes the last execution took. */
  taken = 0
  readonly #exports: Exports
  readonly #input: number
  #memory: Uint8Array
  #events: LlhttpEvents = NO_EVENTS
  #errno = 0

  constructor() {
    const instance = new WebAssembly.Instance((compiled ??= new WebAssembly.Module(BYTES)), {
      env: this.#imports(),
    })
    if (!isLlhttp(instance.exports)) throw new TypeError('this is not the llhttp that we know')
    this.#exports = instance.exports
    this.#input = this.#exports.malloc(EXECUTE_BYTES_MAX)
    this.#memory = new Uint8Array(this.#exports.memory.buffer)
  }

  /** A new parser of requests; it is never freed, so keep it and `reset` it. */
  create(): number {
    const parser = this.#exports.llhttp_alloc(REQUEST)
    // The allocation may have made the memory grow, and a grown memory has a new buffer.
    const { buffer } = this.#exports.memory
    if (this.#memory.buffer !== buffer) this.#memory = new Uint8Array(buffer)
    return parser
  }

  /** Makes it expect the start of a request. */
  reset(parser: number): void {
    this.#exports.llhttp_reset(parser)
  }

  /** Goes on after `paused`. */
  resume(parser: number): void {
    this.#exports.llhttp_resume(parser)
  }

  /** Parses at most `EXECUTE_BYTES_MAX` of `buffer[at, end)`; `taken` tells how many. */
  execute(
    parser: number,
    buffer: Buffer,
    at: number,
    end: number,
    events: LlhttpEvents,
  ): Execution {
    const bytes = Math.min(end - at, EXECUTE_BYTES_MAX)
    this.#memory.set(buffer.subarray(at, at + bytes), this.#input)
    this.#events = events
    this.#errno = this.#exports.llhttp_execute(parser, this.#input, bytes)
    this.#events = NO_EVENTS
    if (this.#errno === OK) {
      this.taken = bytes
      return 'more'
    }
    this.taken = this.#exports.llhttp_get_error_pos(parser) - this.#input
    return this.#errno === PAUSED ? 'paused' : 'broken'
  }

  /** Name of the error that made the last execution `broken`, e.g. `HPE_INVALID_VERSION`. */
  get error(): string {
    return ERROR_NAMES.get(this.#errno) ?? `HPE_${this.#errno}`
  }

  /** Upper-case; undefined for a method of another protocol. */
  method(parser: number): string | undefined {
    return METHOD_NAMES.get(this.#exports.llhttp_get_method(parser))
  }

  /** 11 for HTTP/1.1. */
  version(parser: number): number {
    const llhttp = this.#exports
    return llhttp.llhttp_get_http_major(parser) * 10 + llhttp.llhttp_get_http_minor(parser)
  }

  #imports() {
    const piece = (kind: PieceKind) => (_: number, at: number, bytes: number) => {
      const start = at - this.#input
      return this.#events.piece(kind, start, start + bytes) ? OK : USER
    }
    return {
      wasm_on_message_begin: () => OK,
      wasm_on_url: piece(PIECE.target),
      wasm_on_status: () => OK,
      wasm_on_header_field: piece(PIECE.name),
      wasm_on_header_value: piece(PIECE.value),
      wasm_on_headers_complete: (_: number, _status: number, _upgrade: number, keep: number) => {
        this.#events.headComplete(keep === 1)
        return PAUSED
      },
      wasm_on_body: (_: number, at: number, bytes: number) => {
        const start = at - this.#input
        this.#events.body(start, start + bytes)
        return OK
      },
      wasm_on_message_complete: () => PAUSED,
    }
  }
}

const NO_EVENTS: LlhttpEvents = {
  piece: () => false,
  headComplete: () => undefined,
  body: () => undefined,
}

const BYTES = new Uint8Array(wasm)
let compiled: WebAssembly.Module | undefined

const OK = codeOf('OK')
const USER = codeOf('USER')
const PAUSED = codeOf('PAUSED')
const REQUEST = TYPE['REQUEST'] ?? 1

function codeOf(name: string): number {
  const code = ERROR[name]
  if (code === undefined) throw new TypeError(`llhttp has no code ${name}`)
  return code
}

const ERROR_NAMES = new Map(Object.entries(ERROR).map(([name, code]) => [code, `HPE_${name}`]))

/** Without the methods of RTSP, which llhttp understands as well. */
const METHOD_NAMES = new Map(
  Object.entries(METHODS)
    .filter(([, code]) => METHODS_HTTP.includes(code))
    .map(([name, code]) => [code, name]),
)

function isLlhttp(exports: object): exports is Exports {
  return 'llhttp_execute' in exports && 'llhttp_alloc' in exports && 'memory' in exports
}
