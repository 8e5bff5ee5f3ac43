import { Fault } from '#shared/fault.ts'
import type { Clock } from '#shared/clock.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import { RunnerServer, type Lane, type RunnerLink } from '#agent/invoke/index.ts'
import type { Engine, HandlerExit } from './engine.ts'
import { equip, load } from './equip.ts'
import { exitFault, isPassing, isRefusal, withTail } from './handler-failure.ts'
import { specOf, type HandlerFolders, type HandlerRecord } from './handler-record.ts'
import { HANDLER_TIMEOUTS, isOver } from './handler-state.ts'
import type { HandlerState, HandlerTimeouts, HandlerTimings } from './handler-state.ts'
import { logLine } from './log-line.ts'
import type { Spare } from './spare.ts'
import { allEnded, within } from './within.ts'

/** The engine reports the end of a process a little after its connection broke. */
const EXIT_WAIT_MS = 500
const LAST_WORK_MS = 200
/** A local socket does not break by itself: a runner that loses it again and again does so on purpose. */
const RELINKS_MAX = 3
const LINK_ENDED = 'its connection ended'

export interface HandlerOptions {
  readonly record: HandlerRecord
  readonly engine: Engine
  readonly folders: HandlerFolders
  readonly clock: Clock
  /** Made of this one, which has the record's id, in place of a new container or process. */
  readonly spare?: Spare | undefined
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
  /** The engine has been asked to pause it, and not to let it go on. */
  #held = false
  #relinks = 0

  /** @param origin - `created`: nothing is there yet; `found`: an earlier agent has started it. */
  constructor(options: HandlerOptions, origin: 'created' | 'found') {
    this.record = options.record
    this.#options = options
    this.#timeouts = { ...HANDLER_TIMEOUTS, ...options.timeouts }
    this.#state = { kind: origin }
    this.#launched = origin === 'found'
    if (options.spare !== undefined) this.#takeOver(options.spare)
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

  /** True when it may be paused: it gets no calls, its runner is there and has nothing left to do. */
  get pausable(): boolean {
    const link = this.#server?.link
    const resting = this.#state.kind === 'drained' || this.#state.kind === 'ready'
    const sound = link?.takesCalls === true && link.inFlight === 0
    return resting && sound && !this.#over.signal.aborted
  }

  /** Makes and starts it, or makes it of a spare. Resolves when it is ready or is not going to be; `state` tells which. */
  async start(): Promise<void> {
    const { spare } = this.#options
    this.#startedAtMs = performance.now()
    await this.#open((signal) =>
      spare === undefined ? this.#launch(signal) : this.#equipSpare(spare, signal),
    )
  }

  /** Takes over one that runs already: its runner connects as soon as the socket is back. Resolves like `start`. */
  async adopt(wasPaused: boolean): Promise<void> {
    this.#startedAtMs = performance.now()
    await this.#open(async (signal) => {
      await this.#listen()
      const isAwake =
        !wasPaused &&
        (await within(this.#arrived.promise, this.#timeouts.awakeMs, signal, () => undefined))
      if (!isAwake) await this.#options.engine.unpause(this.id, signal)
      const link = await this.#hello(this.#timeouts.adoptMs, signal)
      // The earlier agent was cut off before it had it ready for INIT.
      if (link.hello.state === 'empty') await equip(this.#options, undefined, signal)
      return link
    })
  }

  /** The engine says that its process ended. */
  exited(exit: HandlerExit): void {
    this.#ended.resolve(exit)
    if (isOver(this.#state)) return
    this.#over.abort(exitFault(this.record, exit, this.#loaded))
    // An opening under way sees the abort and fails by itself.
    if (['ready', 'serving', 'paused'].includes(this.#state.kind)) void this.#fail(undefined)
  }

  /** Opens it for calls. Only when `ready`. */
  attach(lane: Lane): void {
    const state = this.#state
    if (state.kind !== 'ready') throw new TypeError(`handler ${this.id} is ${state.kind}`)
    const { release, concurrency, fresh } = this.record
    lane.attach(state.link, release, concurrency, fresh === true ? 1 : undefined)
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
   * Puts it to sleep: it keeps its memory and gets no CPU. Only when `pausable`. Resolves when it is `paused`, or `failed`.
   *
   * @throws Fault `ENGINE_UNAVAILABLE`, the signal's reason: it is as before
   */
  async pause(signal: AbortSignal): Promise<void> {
    const link = this.#server?.link
    if (link === undefined || !this.pausable) {
      throw new TypeError(`handler ${this.id} is ${this.#state.kind} and cannot be paused`)
    }
    await this.#rest({ kind: 'pausing', link }, signal, async (either) => {
      this.#held = true
      await this.#options.engine.pause(this.id, either)
      return { kind: 'paused', link }
    })
  }

  /**
   * Wakes it up, or takes it back after it was drained. Only when `paused` or `pausable`. Resolves when its runner has answered
   * and it is `ready`, or `failed`.
   *
   * @throws Fault `ENGINE_UNAVAILABLE`, the signal's reason: it is as before
   */
  async resume(signal: AbortSignal): Promise<void> {
    const link = this.#server?.link
    if (link === undefined || (this.#state.kind !== 'paused' && !this.pausable)) {
      throw new TypeError(`handler ${this.id} is ${this.#state.kind} and cannot be resumed`)
    }
    await this.#rest({ kind: 'resuming', link }, signal, async (either) => {
      await this.#wake(either)
      await link.ping(this.#timeouts.resumeMs)
      return { kind: 'ready', link }
    })
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
      // One that has ended, or cannot be woken, is past asking; the engine removes it all the same.
      const refused = await this.#wake(signal).catch((error) => isRefusal(error, signal))
      if (refused !== true) await this.#shutDown(signal)
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
    const late = await within(closed.promise, this.#timeouts.shutdownMs, signal, () => true)
    // The connection ends before the process does, which may be writing for its function still.
    if (late !== true) await within(this.#ended.promise, LAST_WORK_MS, signal, () => undefined)
  }

  /** Into a rest and out of it. An engine that is away is no reason to give up the handler: it is as before then. */
  async #rest(
    during: HandlerState & { readonly kind: 'pausing' | 'resuming' },
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<HandlerState>,
  ): Promise<void> {
    const before = this.#state
    const over = this.#over.signal
    this.#set(during)
    const run = async (): Promise<void> => {
      try {
        const after = await work(AbortSignal.any([signal, over]))
        over.throwIfAborted()
        if (during.link.state === 'closed') throw new Fault('FUNCTION_EXITED', LINK_ENDED)
        this.#set(after)
      } catch (error) {
        if (isPassing(error, signal) && !over.aborted) {
          this.#set(before)
          throw error
        }
        await this.#fail(error)
      }
    }
    const running = run()
    this.#opening = running.catch(() => undefined)
    await running
  }

  async #wake(signal: AbortSignal): Promise<void> {
    if (!this.#held) return
    await this.#options.engine.unpause(this.id, signal)
    this.#held = false
  }

  async #launch(signal: AbortSignal): Promise<RunnerLink> {
    const { engine, folders, record } = this.#options
    await folders.create(record)
    await this.#listen()
    this.#mark('folderMs')
    const started = async (): Promise<RunnerLink> => {
      await engine.start(specOf(record, folders.root), signal)
      this.#launched = true
      this.#mark('engineMs')
      return this.#hello(this.#timeouts.helloMs, signal)
    }
    // Meanwhile, because it is not needed before INIT.
    const placed = folders.place(record).then(() => this.#mark('equippedMs'))
    const link = started()
    await allEnded([link, placed])
    return link
  }

  /** From now on whatever happens to the spare happens to this handler, also when it is not started yet. */
  #takeOver(spare: Spare): void {
    const { server, link } = spare.handOver((later) => this.#linked(later))
    this.#server = server
    this.#launched = true
    this.#linked(link)
  }

  /** Makes a spare this function's, up to INIT. */
  async #equipSpare(spare: Spare, signal: AbortSignal): Promise<RunnerLink> {
    try {
      await equip(this.#options, spare.limits, signal)
      this.#mark('equippedMs')
      return await this.#hello(this.#timeouts.helloMs, signal)
    } catch (error) {
      // A Docker runtime need not be able to change limits. Nothing of the function has run in there: begin again.
      if (signal.aborted || !Fault.is(error, 'HANDLER_START')) throw error
    }
    this.#launched = false
    this.#arrived = Promise.withResolvers()
    await spare.stop()
    return this.#launch(signal)
  }

  async #open(connect: (signal: AbortSignal) => Promise<RunnerLink>): Promise<void> {
    this.#set({ kind: this.#loaded ? 'unlinked' : 'starting' })
    const { signal } = this.#over
    const run = async (): Promise<void> => {
      try {
        const link = await connect(signal)
        this.#mark('helloMs')
        if (!this.#loaded) this.#set({ kind: 'loading' })
        await load(link, this.#options, this.#timeouts.loadMs, signal)
        signal.throwIfAborted()
        this.#loaded = true
        this.#mark('readyMs')
        // Lost again in this very moment: its `onClose` came while this was loading and was left to us.
        if (link.state === 'closed') throw new Fault('HANDLER_START', LINK_ENDED)
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
    link.onLog = (line) => onLog(logLine(record, clock.nowMs(), line))
    link.onClose = () => this.#lost(link)
    this.#arrived.resolve(link)
  }

  #lost(link: RunnerLink): void {
    const state = this.#state
    if (state.kind === 'paused') {
      void this.#fail(new Fault('FUNCTION_EXITED', LINK_ENDED))
      return
    }
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

  /** Ends in `failed` with the best explanation there is: the exit before the lost connection, output before silence. */
  async #fail(error: unknown): Promise<void> {
    if (isOver(this.#state)) return
    const waitMs = error === undefined ? 0 : EXIT_WAIT_MS
    const exit = await within(this.#ended.promise, waitMs, undefined, () => undefined)
    const { record, engine } = this.#options
    const fault = exit === undefined ? Fault.from(error) : exitFault(record, exit, this.#loaded)
    const told = Fault.is(error, 'FUNCTION_LOAD') ? error : await withTail(engine, record, fault)
    // Stopped while we looked for the reason: nobody asks for it any more.
    if (!isOver(this.#state)) this.#set({ kind: 'failed', fault: told })
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
