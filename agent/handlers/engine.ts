import type { EngineKind, Runtime } from '#shared/schemas/names.ts'

/** What a handler may use. Memory includes its tmpfs. */
export interface HandlerLimits {
  readonly memoryMiB: number
  readonly cpus: number
  readonly pids: number
}

/** Everything an engine needs to start a spare: a runner without a function, and without network. */
export interface SpareSpec {
  /** `[a-z0-9]{12}`, new for every handler. */
  readonly id: string
  readonly runtime: Runtime
  /**
   * The handler's folder on the host; holds the socket `s`, and the function's code `fn` when INIT is sent. Seen by the handler
   * as `/shoal`, read-only (docker), or as it is (process).
   */
  readonly folder: string
  readonly limits: HandlerLimits
}

/** Everything an engine needs to start one handler. */
export interface HandlerSpec extends SpareSpec {
  readonly fn: string
  readonly release: string
  readonly network: 'none' | 'outbound'
  /** Digest over all that makes two handlers interchangeable; a handler with another one is replaced. */
  readonly specDigest: string
}

/** A handler as the engine sees it. */
export interface ObservedHandler {
  readonly id: string
  /** What it was started for; absent when it was started as a spare, also when it has a function by now. */
  readonly fn?: string
  readonly release?: string
  readonly specDigest?: string
  readonly state: 'created' | 'running' | 'paused' | 'exited'
  readonly exitCode?: number
  readonly oomKilled?: boolean
}

export interface HandlerExit {
  readonly id: string
  readonly exitCode: number
  readonly oomKilled: boolean
}

/**
 * Starts and stops handlers, and nothing else: no function names, no traffic, no retries. Two implementations, one
 * conformance suite (`test/integration/engine-conformance.ts`). Everything it makes carries the installation's id, and it
 * lists, touches and removes nothing else.
 */
export interface Engine extends AsyncDisposable {
  readonly kind: EngineKind
  /**
   * What handlers of a runtime are made from here (image id, command line): part of `specDigest`, so that a new runtime
   * image replaces handlers like a new release does.
   *
   * @throws Fault `IMAGE_MISSING`
   */
  identity(runtime: Runtime): Promise<string>
  /** What `INIT.dir` must be for a spec: `fn` in its folder as the handler sees it. */
  codeDirInside(spec: Pick<SpareSpec, 'folder'>): string
  /** @throws Fault `ENGINE_UNAVAILABLE` */
  version(signal: AbortSignal): Promise<string>
  /** Runtimes that can be started here (image or interpreter present). */
  runtimes(signal: AbortSignal): Promise<readonly Runtime[]>
  list(signal: AbortSignal): Promise<readonly ObservedHandler[]>
  /** Creates and starts. @throws Fault `IMAGE_MISSING`, `HANDLER_START`, `ENGINE_UNAVAILABLE` */
  start(spec: HandlerSpec, signal: AbortSignal): Promise<void>
  /** As `start`, for a handler whose function is not known yet. */
  startSpare(spec: SpareSpec, signal: AbortSignal): Promise<void>
  /**
   * Gives a running handler other limits, at once.
   *
   * @throws Fault `HANDLER_START` (refused, e.g. it uses more memory already), `FUNCTION_EXITED` (gone), `ENGINE_UNAVAILABLE`
   */
  update(id: string, limits: HandlerLimits, signal: AbortSignal): Promise<void>
  /**
   * Holds all of its processes: they keep their memory and get no CPU. One that is paused already is no error.
   *
   * @throws Fault `FUNCTION_EXITED` (it is gone), `ENGINE_UNAVAILABLE`
   */
  pause(id: string, signal: AbortSignal): Promise<void>
  /** Lets them go on. One that is not paused is no error. @throws as `pause` */
  unpause(id: string, signal: AbortSignal): Promise<void>
  /** Ends (after `graceMs`, by force) and removes; a handler that is gone is no error. */
  stop(id: string, graceMs: number, signal: AbortSignal): Promise<void>
  /** Last bytes of what the handler wrote outside the frame protocol; for "why did it not start?". */
  tail(id: string, bytesMax: number, signal: AbortSignal): Promise<string>
  /** Calls back for every handler of ours that ends, from now on, also across a restart of the engine's daemon. */
  watch(onExit: (exit: HandlerExit) => void, onLost: (error: Error) => void): Disposable
  /** Deep probe: really starts and removes something small; resolves to milliseconds taken. */
  probe(signal: AbortSignal): Promise<number>
}
