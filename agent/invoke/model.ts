import type { Readable } from 'node:stream'
import type { BlockLease } from '#agent/sockets/index.ts'

/** Header fields in order, names lower-case, flat: name, value, name, value, ... */
export type HeaderList = readonly string[]

/** Whole when small or already whole (no copy is made of it), else a stream with backpressure. */
export type Body = Buffer | Readable

export type Protocol = 'http' | 'coap' | 'grpc' | 'nats' | 'async'

/** The bytes of a request's head (`prepareHead`), but for its request id. */
export interface PreparedHead {
  readonly bytes: Buffer
  /** Where the id belongs. */
  readonly idAt: number
}

/** One call of a function, whatever protocol it came by. No field may hold a line feed. */
export interface Invocation {
  readonly fn: string
  /** Upper-case, e.g. `POST`. */
  readonly method: string
  /** Rest of the path behind the function's name, percent-encoded: empty, or starts with `/`. */
  readonly path: string
  /** Without the leading `?`. */
  readonly query: string
  readonly headers: HeaderList
  readonly body: Body
  /** Of the body's memory, when it is used again. Only for a body of at most `FRAME_LIMITS.windowBytesMin`, which one frame holds. */
  readonly lease?: BlockLease | undefined
  readonly protocol: Protocol
  /** Goes to the function as `shoal-request-id`, and into its log lines. */
  readonly requestId: string
  /** What the caller allows, in milliseconds from now; the function's own limit applies as well. */
  readonly deadlineMs: number | undefined
  /** `prepareHead` of a call with the same method, path, query, headers and protocol: it need not be made again. */
  readonly head?: PreparedHead | undefined
}

/** What the function answered. A function that fails is a `Fault`, not a result. */
export interface Result {
  readonly status: number
  readonly headers: HeaderList
  /** The caller's alone, a stream's chunks too. A stream must be read to its end or destroyed: destroying it cancels the call. */
  readonly body: Body
}

/** Hears once that a call's caller has gone. */
export interface CallerListener {
  handleEvent(): void
}

/** Tells whether a call's caller has gone. Every `AbortSignal` does, and so can something lighter. */
export interface CallerSignal {
  readonly aborted: boolean
  readonly reason: unknown
  addEventListener(type: 'abort', listener: CallerListener): void
  removeEventListener(type: 'abort', listener: CallerListener): void
}

/** The port that every protocol's proxy calls. */
export interface Invoker {
  /**
   * The function's name when the path (without leading `/`) starts with one that runs here, longest first;
   * `rest` is what follows: empty, or starts with `/`.
   */
  match(path: string): { readonly fn: string; readonly rest: string } | undefined
  /** Names that run here, sorted. */
  names(): readonly string[]
  /**
   * Calls a function.
   *
   * @param signal - Aborts when the caller has gone; the call is then cancelled in the function.
   * @throws Fault `FUNCTION_UNKNOWN`, `FUNCTION_SATURATED` (details.retryAfterMs), `FUNCTION_UNAVAILABLE`, `DEADLINE_EXCEEDED`,
   *   `FUNCTION_ERROR`, `FUNCTION_EXITED`, `FUNCTION_BAD_ANSWER`, `FUNCTION_OUTPUT_TOO_LARGE`, `BODY_TOO_LARGE`, `CALLER_GONE`, `SHUTTING_DOWN`
   */
  invoke(invocation: Invocation, signal?: AbortSignal): Promise<Result>
  /** As `invoke`, without a promise: exactly one of the callbacks is called, once, perhaps before this returns. */
  start(
    invocation: Invocation,
    signal: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (error: unknown) => void,
  ): void
  /**
   * Takes a call to be run in the background; its outcome is logged and counted. Returns when it has been accepted.
   *
   * @throws Fault `FUNCTION_UNKNOWN` `FUNCTION_SATURATED` `SHUTTING_DOWN`
   */
  accept(invocation: Invocation): Promise<void>
}
