import { Fault } from '#shared/fault.ts'
import type { Clock } from '#shared/clock.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import { RunnerServer, type Lane, type RunnerLink } from '#agent/invoke/index.ts'
import type { Engine, HandlerExit } from './engine.ts'
import { specOf, type HandlerFolders, type HandlerRecord } from './handler-record.ts'

/**
 * ```
 * created --start()--> starting --HELLO--> loading --READY--> ready --attach()--> serving
 * found ---adopt()---> starting               ^                                     |
 *                                             +--- HELLO --- unlinked <-- link lost-+
 * serving --drain()--> draining --> drained
 * any of these, when its process ends, says nothing in time or cannot load --> failed
 * any --stop()--> stopping --> stopped          any --leave()--> left (goes on without this agent)
 * ```
 */
export type HandlerState =
  | { readonly kind: 'created' | 'found' | 'starting' | 'loading' | 'unlinked' }
  | { readonly kind: 'ready' | 'serving' | 'draining'; readonly link: RunnerLink }
  | { readonly kind: 'drained' | 'stopping' | 'stopped' | 'left' }
  | { readonly kind: 'failed'; readonly fault: Fault }

/** Milliseconds from the beginning of the start to the end of each part; absent: not reached, or adopted. */
export interface HandlerTimings {
  readonly folderMs?: number
  readonly engineMs?: number
  readonly helloMs?: number
  readonly readyMs?: number
}

export interface HandlerTimeouts {
  /** From the engine's start to HELLO. */
  readonly helloMs: number
  /** From INIT to READY: installing nothing, importing everything. */
  readonly loadMs: number
  /** For the runner of a handler that is adopted to connect; it tries again at least once a second. */
  readonly adoptMs: number
  /** For a runner that lost its connection while its process goes on. */
  readonly relinkMs: number
  /** From SHUTDOWN to force. */
  readonly shutdownMs: number
}

export const HANDLER_TIMEOUTS: HandlerTimeouts = {
  helloMs: 30_000,
  loadMs: 60_000,
  adoptMs: 5_000,
  relinkMs: 2_000,
  shutdownMs: 1_000,
}

const TAIL_BYTES_MAX = 4 * 1024
const TAIL_MS = 5_000
/** The engine reports the end of a process a little after its connection broke. */
const EXIT_WAIT_MS = 500
/** A local socket does not break by itself: a runner that loses it again and again does so on purpose. */
const RELINKS_MAX = 3

export interface HandlerOptions {
  readonly record: HandlerRecord
  readonly engine: Engine
  readonly folders: HandlerFolders
  readonly clock: Clock
  readonly timeouts?: Partial<HandlerTimeouts>
  /** Every line the function writes. Must not throw. */
  readonly onLog: (line: LogLine) => void
  /** After every change of `state`. Must not throw. */
  readonly onChange: (handler: Handler) => void
}

/** One handler's life, from its folder to its removal. Its owner decides when; it knows how. */
export class Handler {
  readonly record: HandlerRecord
  readonly #options: HandlerOptions
  readonly #timeouts: HandlerTimeouts
  /** Ends whatever is under way: aborted by the end of the process, by `stop` and by `leave`. */
  readonly #over = new AbortController()
  #state: HandlerState
  #timings: HandlerTimings = {}
  #startedAtMs = 0
  #server: RunnerServer | undefined
  #arrived = Promise.withResolvers<RunnerLink>()
  #ended = Promise.withResolvers<HandlerExit>()
  /** The opening under way, or the last one; never rejects. */
  #opening: Promise<void> = Promise.resolve()
  #stopping: Promise<void> | undefined
  #launched: boolean
  #loaded = false
  #relinks = 0

  /** @param origin - `created`: nothing is there yet; `found`: an earlier agent has started it. */
  constructor(options: HandlerOptions, origin: 'created' | 'found') {
    this.record = options.record
    this.#options = options
    this.#timeouts = { ...HANDLER_TIMEOUTS, ...options.timeouts }
    this.#state = { kind: origin }
    this.#launched = origin === 'found'
  }

  get id(): string {
    return this.record.id
  }

  get state(): HandlerState {
    return this.#state
  }

  /** True when the engine must have it: it has said that it started it, now or under an earlier agent. */
  get launched(): boolean {
    return this.#launched
  }

  /** True when it has been ready before: worth keeping. */
  get wasReady(): boolean {
    return this.#loaded
  }

  get timings(): HandlerTimings {
    return this.#timings
  }

  /** Makes and starts it. Resolves when it is ready or is not going to be; `state` tells which. */
  async start(): Promise<void> {
    const { engine, folders, record } = this.#options
    this.#startedAtMs = performance.now()
    await this.#open(async (signal) => {
      await folders.create(record)
      await this.#listen()
      this.#mark('folderMs')
      await engine.start(specOf(record, folders.root), signal)
      this.#launched = true
      this.#mark('engineMs')
      return this.#hello(this.#timeouts.helloMs, signal)
    })
  }

  /** Takes over one that runs already: its runner connects as soon as the socket is back. Resolves like `start`. */
  async adopt(): Promise<void> {
    this.#startedAtMs = performance.now()
    await this.#open(async (signal) => {
      await this.#listen()
      return this.#hello(this.#timeouts.adoptMs, signal)
    })
  }

  /** The engine says that its process ended. */
  exited(exit: HandlerExit): void {
    this.#ended.resolve(exit)
    if (isOver(this.#state)) return
    this.#over.abort(this.#exitFault(exit))
    // An opening under way sees the abort and fails by itself.
    if (this.#state.kind === 'ready' || this.#state.kind === 'serving') void this.#fail(undefined)
  }

  /** Opens it for calls. Only when `ready`. */
  attach(lane: Lane): void {
    const state = this.#state
    if (state.kind !== 'ready') throw new TypeError(`handler ${this.id} is ${state.kind}`)
    lane.attach(state.link, this.record.release, this.record.concurrency)
    this.#set({ kind: 'serving', link: state.link })
  }

  /** No new calls; resolves when those in flight have ended, see `Lane.drain`. Only when `serving`. */
  async drain(lane: Lane, limitMs?: number): Promise<void> {
    const state = this.#state
    if (state.kind !== 'serving') throw new TypeError(`handler ${this.id} is ${state.kind}`)
    this.#set({ kind: 'draining', link: state.link })
    await lane.drain(state.link, limitMs)
    if (this.#state.kind === 'draining') this.#set({ kind: 'drained' })
  }

  /**
   * Ends and removes it with everything it had, whatever its state. Calls in flight are cut off: drain before.
   *
   * @throws Fault `ENGINE_UNAVAILABLE`, `STORAGE`: it is `drained` then, and can be stopped again
   */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping ??= this.#stop(signal).finally(() => {
      this.#stopping = undefined
    })
    await this.#stopping
  }

  /** Lets go of it without ending it: the next agent adopts it. */
  async leave(): Promise<void> {
    if (['stopping', 'stopped', 'left'].includes(this.#state.kind)) return
    this.#set({ kind: 'left' })
    this.#over.abort()
    await this.#opening
    await this.#server?.close()
  }

  async #stop(signal: AbortSignal): Promise<void> {
    if (this.#state.kind === 'stopped') return
    const { engine, folders } = this.#options
    this.#set({ kind: 'stopping' })
    this.#over.abort()
    await this.#opening
    try {
      await this.#shutDown(signal)
      await engine.stop(this.id, 0, signal)
      await this.#server?.close()
      await folders.remove(this.id)
    } catch (error) {
      this.#set({ kind: 'drained' })
      throw error
    }
    this.#set({ kind: 'stopped' })
  }

  /** Asks the runner to end by itself, so that its function may clean up. */
  async #shutDown(signal: AbortSignal): Promise<void> {
    const link = this.#server?.link
    if (link === undefined || link.state === 'closed' || link.blocked) return
    const closed = Promise.withResolvers<undefined>()
    link.onClose = () => closed.resolve(undefined)
    link.shutdown()
    await within(closed.promise, this.#timeouts.shutdownMs, signal, () => undefined)
  }

  async #open(connect: (signal: AbortSignal) => Promise<RunnerLink>): Promise<void> {
    this.#set({ kind: this.#loaded ? 'unlinked' : 'starting' })
    const { signal } = this.#over
    const run = async (): Promise<void> => {
      try {
        const link = await connect(signal)
        this.#mark('helloMs')
        if (!this.#loaded) this.#set({ kind: 'loading' })
        await this.#load(link, signal)
        signal.throwIfAborted()
        this.#loaded = true
        this.#mark('readyMs')
        // Lost again in this very moment: its `onClose` came while this was loading and was left to us.
        if (link.state === 'closed') throw new Fault('HANDLER_START', 'its connection ended')
        this.#set({ kind: 'ready', link })
      } catch (error) {
        await this.#fail(error)
      }
    }
    this.#opening = run()
    await this.#opening
  }

  async #listen(): Promise<void> {
    const socketPath = this.#options.folders.socketPath(this.id)
    this.#server = await RunnerServer.listen({
      socketPath,
      handlerId: this.id,
      onLink: (link) => this.#linked(link),
    })
  }

  #linked(link: RunnerLink): void {
    const { clock, onLog, record } = this.#options
    link.onLog = ({ level, request, text }) =>
      onLog({
        atMs: clock.nowMs(),
        fn: record.fn,
        release: record.release,
        handler: this.id,
        level,
        ...(request === undefined ? {} : { request }),
        text,
      })
    link.onClose = () => this.#lost(link)
    this.#arrived.resolve(link)
  }

  #lost(link: RunnerLink): void {
    const state = this.#state
    if ((state.kind !== 'ready' && state.kind !== 'serving') || state.link !== link) return
    this.#relinks++
    this.#arrived = Promise.withResolvers()
    const newer = this.#server?.link
    if (newer !== undefined && newer !== link) this.#arrived.resolve(newer)
    void this.#open((signal) => this.#hello(this.#timeouts.relinkMs, signal))
  }

  async #hello(limitMs: number, signal: AbortSignal): Promise<RunnerLink> {
    if (this.#relinks > RELINKS_MAX) {
      throw new Fault('FUNCTION_EXITED', `its connection broke ${this.#relinks} times`)
    }
    return within(this.#arrived.promise, limitMs, signal, () => {
      const code = this.#loaded ? 'FUNCTION_EXITED' : 'HANDLER_START'
      throw new Fault(code, `its runner did not connect within ${limitMs} ms`)
    })
  }

  async #load(link: RunnerLink, signal: AbortSignal): Promise<void> {
    const { engine, folders, record } = this.#options
    const { fn, release, entry, env, concurrency, timeoutMs } = record
    const limit = AbortSignal.timeout(this.#timeouts.loadMs)
    const both = AbortSignal.any([signal, limit])
    const { hello } = link
    try {
      if (hello.state === 'empty') {
        const dir = engine.bundleDirInside(specOf(record, folders.root))
        const common = { fn, release, dir, env, concurrency, timeoutMs }
        await link.init(entry === undefined ? common : { ...common, entry }, both)
      } else if (hello.fn !== fn || hello.release !== release) {
        throw new Fault('HANDLER_START', `its runner has loaded ${hello.fn} ${hello.release}`)
      } else {
        await link.ready(both)
      }
    } catch (error) {
      if (signal.aborted || !limit.aborted) throw error
      const message = `${fn} ${release} did not load within ${this.#timeouts.loadMs} ms`
      throw new Fault('FUNCTION_LOAD', message, {}, { cause: error })
    }
  }

  /** Ends in `failed` with the best explanation there is: the exit before the lost connection, output before silence. */
  async #fail(error: unknown): Promise<void> {
    if (isOver(this.#state)) return
    const exit = await within(
      this.#ended.promise,
      error === undefined ? 0 : EXIT_WAIT_MS,
      undefined,
      () => undefined,
    )
    const fault = exit === undefined ? Fault.from(error) : this.#exitFault(exit)
    const told = Fault.is(error, 'FUNCTION_LOAD') ? error : await this.#withTail(fault)
    // Stopped while we looked for the reason: nobody asks for it any more.
    if (!isOver(this.#state)) this.#set({ kind: 'failed', fault: told })
  }

  #exitFault({ exitCode, oomKilled }: HandlerExit): Fault {
    const how = oomKilled
      ? `ran out of its ${this.record.limits.memoryMiB} MiB of memory`
      : exitCode < 0
        ? 'ended'
        : `ended with exit code ${exitCode}`
    const when = this.#loaded ? '' : ' before it was ready'
    const code = this.#loaded ? 'FUNCTION_EXITED' : 'HANDLER_START'
    return new Fault(code, `its process ${how}${when}`, { exitCode, oomKilled })
  }

  async #withTail(fault: Fault): Promise<Fault> {
    const { engine, record } = this.#options
    const details = { ...fault.details, fn: record.fn, release: record.release, handler: this.id }
    const what = `handler of ${record.fn} ${record.release}: ${fault.message}`
    // The engine's own trouble explains itself, and there is nothing to read from it then.
    if (['ENGINE_UNAVAILABLE', 'IMAGE_MISSING', 'STORAGE'].includes(fault.code)) return fault
    const tail = await engine
      .tail(this.id, TAIL_BYTES_MAX, AbortSignal.timeout(TAIL_MS))
      .catch(() => '')
    const message = tail.trim() === '' ? what : `${what}; its last output:\n${tail.trimEnd()}`
    return new Fault(fault.code, message, details, { cause: fault.cause })
  }

  #mark(part: keyof HandlerTimings): void {
    const ms = Math.round(performance.now() - this.#startedAtMs)
    this.#timings = { [part]: ms, ...this.#timings }
  }

  #set(state: HandlerState): void {
    this.#state = state
    this.#options.onChange(this)
  }
}

/** True when nothing that happens to the handler matters any more. */
function isOver({ kind }: HandlerState): boolean {
  return ['draining', 'drained', 'stopping', 'stopped', 'left', 'failed'].includes(kind)
}

/** The promise's value, or what `onLate` gives after `limitMs`. @throws the signal's reason */
async function within<T, U>(
  promise: Promise<T>,
  limitMs: number,
  signal: AbortSignal | undefined,
  onLate: () => U,
): Promise<T | U> {
  signal?.throwIfAborted()
  const late = Promise.withResolvers<'late'>()
  const timer = setTimeout(() => late.resolve('late'), limitMs)
  const onAbort = (): void => late.reject(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const first = await Promise.race([promise.then((value) => ({ value })), late.promise])
    return first === 'late' ? onLate() : first.value
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
