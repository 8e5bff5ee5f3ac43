import { setTimeout as sleep } from 'node:timers/promises'
import {
  Handler,
  HandlerFolders,
  type BundleStore,
  type Engine,
  type HandlerExit,
  type HandlerRecord,
  type HandlerTimeouts,
  type HandlerTimings,
} from '#agent/handlers/index.ts'
import type { InvokeRouter } from '#agent/invoke/index.ts'
import type { Clock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { FunctionReport, LogLine } from '#shared/schemas/health.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import { apply, type ReconcileLog, type Workshop } from './apply.ts'
import { EngineWatch } from './engine-watch.ts'
import { FunctionState, newHeld, type Held } from './function-state.ts'
import type { Actual, Desired } from './model.ts'
import { plan } from './plan.ts'
import { isHopeless, reasonOf, reportOf } from './report.ts'
import { Slots } from './slots.ts'
import { survey } from './survey.ts'

/** Between two rounds: events that come together are handled together. */
const PAUSE_MS = 2
/** A function that cannot be started here is looked at again so often: an image may have come. */
const REFUSED_MS = 2_000

/** Monotonic: the wall clock may jump, pauses must not. */
const monotonicMs = (): number => performance.now()

export interface ReconcilerOptions {
  readonly engine: Engine
  readonly router: InvokeRouter
  readonly bundles: BundleStore
  /** For handlers' folders; short, because Unix sockets lie below it. */
  readonly folder: string
  readonly clock: Clock
  readonly log: ReconcileLog
  /** Every line of every function. Must not throw. */
  readonly onLog: (line: LogLine) => void
  /** A handler serves for the first time; what its start took. Must not throw. */
  readonly onStarted?: (fn: string, timings: HandlerTimings) => void
  /** Default: that of shared/limits.ts. */
  readonly bodyBytesMax?: number
  /** For calls in flight when the reconciler closes, or on a handler that answers nobody; default 5,000. */
  readonly drainMs?: number
  /** Handlers started at once; default 4. */
  readonly startsMax?: number
  /** Between two surveys of what the engine and the disk really have; default 30,000. */
  readonly surveyMs?: number
  readonly timeouts?: Partial<HandlerTimeouts>
  /** 0 to 1; default Math.random. */
  readonly random?: () => number
}

export interface CloseOptions {
  /** True: ends and removes all handlers. False: they go on, for the next agent to adopt. */
  readonly removeHandlers: boolean
}

/**
 * Brings what runs on this node to what shall run, and keeps it there: observe -> plan -> apply, again and again.
 *
 * One loop owns every change. Events (a new wish, a handler that is ready or gone, an overrun, the engine back, a timer) only
 * wake it. Nothing happens before the first `setDesired`: until then nobody knows what is wanted, so nothing may be removed.
 * And nothing is started before the first survey of the engine: until then nobody knows what runs.
 */
export class Reconciler implements AsyncDisposable {
  readonly #options: ReconcilerOptions
  readonly #shop: Workshop
  readonly #watch: EngineWatch
  readonly #over = new AbortController()
  readonly #functions = new Map<string, FunctionState>()
  readonly #orphans = new Set<string>()
  readonly #background = new Set<Promise<void>>()
  readonly #lingering = new Set<Promise<void>>()
  readonly #loop: Promise<void>
  #told = false
  #calm = false
  #woken = Promise.withResolvers<void>()
  #timer: NodeJS.Timeout | undefined
  #settled = Promise.withResolvers<void>()
  #closing: Promise<void> | undefined

  private constructor(options: ReconcilerOptions, folders: HandlerFolders) {
    this.#options = options
    this.#shop = this.#openShop(folders)
    this.#watch = new EngineWatch({
      engine: options.engine,
      log: options.log,
      surveyMs: options.surveyMs ?? 30_000,
      survey: (signal) => this.#survey(signal),
      onExit: (exit) => this.#exited(exit),
      onBack: () => this.#engineIsBack(),
      onLost: () => this.#wake(),
    })
    this.#loop = this.#run()
  }

  /** @throws Fault `CONFIG_INVALID` (path too long for sockets), `STORAGE`. An engine that is away is waited for. */
  static async start(options: ReconcilerOptions): Promise<Reconciler> {
    return new Reconciler(options, await HandlerFolders.open(options.folder))
  }

  /** What shall run here, all of it: a function that is not named is removed. */
  setDesired(assignments: readonly Assignment[]): void {
    const names = new Set(assignments.map(({ fn }) => fn))
    for (const [fn, state] of this.#functions) if (!names.has(fn)) state.assign(undefined)
    for (const assignment of assignments) {
      const { fn } = assignment
      const state = this.#stateOf(fn)
      state.assign(assignment)
      // Not left to the loop: once this returns, nobody who calls the function may be told that it is unknown.
      if (state.routing === undefined) apply(this.#shop, { kind: 'route', fn, reason: 'new' })
    }
    this.#told = true
    this.#wake()
  }

  /** One entry per function that shall run here, by name. */
  report(): FunctionReport[] {
    const states = [...this.#functions.values()].toSorted((a, b) => (a.fn < b.fn ? -1 : 1))
    return states
      .map((state) => reportOf(state, this.#watch.fault))
      .filter((report) => report !== undefined)
  }

  /** Resolves when nothing is left to do, now or under way; a later try of something that failed does not count. */
  async settled(signal: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<never>()
    const onAbort = (): void => aborted.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      signal.throwIfAborted()
      this.#wake()
      await Promise.race([this.#settled.promise, aborted.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /**
   * Stops reconciling. Calls in flight get `drainMs` to end; close the router's doors before, or new ones will fail.
   * Handlers that are not ready yet are removed in any case.
   */
  close(options: CloseOptions): Promise<void> {
    this.#closing ??= this.#close(options)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close({ removeHandlers: false })
  }

  #openShop(folders: HandlerFolders): Workshop {
    const { engine, router, bundles, log, clock, timeouts = {} } = this.#options
    const { drainMs = 5_000, startsMax = 4, bodyBytesMax = LIMITS.bodyBytesMax } = this.#options
    const { onLog, onStarted, random = Math.random } = this.#options
    const common = { engine, folders, clock, timeouts, onLog }
    return {
      engine,
      router,
      bundles,
      folders,
      log,
      bodyBytesMax,
      drainMs,
      nowMs: monotonicMs,
      functions: this.#functions,
      orphans: this.#orphans,
      slots: {
        start: new Slots(startsMax),
        adopt: new Slots(16),
        stop: new Slots(4),
        fetch: new Slots(2),
      },
      signal: this.#over.signal,
      newHandler: (record, origin) => {
        const onChange = (handler: Handler): void => this.#changed(handler)
        return new Handler({ ...common, record, onChange }, origin)
      },
      track: (work) => this.#track(work),
      linger: (work) => this.#track(work, this.#lingering),
      failed: (state, error) => {
        const fault = Fault.from(error)
        state.fail(fault, monotonicMs(), random())
        log.warn(
          { [LOG_KEYS.fn]: state.fn, [LOG_KEYS.err]: fault, failures: state.failures },
          'function failed',
        )
        if (fault.code === 'ENGINE_UNAVAILABLE') this.#watch.lost(fault)
        this.#wake()
      },
      started: (state, timings) => onStarted?.(state.fn, timings),
    }
  }

  async #run(): Promise<void> {
    while (!this.#over.signal.aborted) {
      await this.#woken.promise
      this.#woken = Promise.withResolvers()
      if (this.#over.signal.aborted) return
      try {
        if (this.#told) await this.#round()
      } catch (error) {
        this.#options.log.error({ [LOG_KEYS.err]: error }, 'round failed')
      }
      await sleep(PAUSE_MS)
    }
  }

  async #round(): Promise<void> {
    await this.#resolve()
    if (this.#over.signal.aborted) return
    const { desired, actual } = this.#observe()
    const steps = plan(desired, actual, this.#shop.nowMs())
    for (const step of steps) apply(this.#shop, step)
    this.#announce()
    this.#schedule()
    if (steps.length > 0) {
      // Looks again at once: a step that is done within its round has no end that would wake the loop.
      this.#calm = false
      this.#wake()
      return
    }
    // Before the first survey nobody knows which bundles are in use.
    if (this.#background.size > 0 || this.#watch.state === 'lost') return
    if (!this.#calm) this.#track(this.#collectGarbage())
    else if (this.#lingering.size === 0) {
      this.#settled.resolve()
      this.#settled = Promise.withResolvers()
    }
    this.#calm = true
  }

  /** What each runtime's handlers are made of now: images may have come, gone or changed. */
  async #resolve(): Promise<void> {
    const { engine } = this.#options
    const identities = new Map<Runtime, string | Fault>()
    for (const { assignment } of this.#functions.values()) {
      if (assignment === undefined || identities.has(assignment.runtime)) continue
      const { runtime } = assignment
      identities.set(runtime, await engine.identity(runtime).catch((error) => Fault.from(error)))
    }
    for (const state of this.#functions.values()) state.resolve(engine.kind, identities)
  }

  #observe(): { readonly desired: Desired[]; readonly actual: Actual } {
    const nowMs = this.#shop.nowMs()
    const states = [...this.#functions.values()]
    const desired = states.map((state) => state.desired()).filter((want) => want !== undefined)
    const functions = states.map((state) => {
      const digest = state.assignment?.artifact.digest
      const present = digest !== undefined && this.#shop.bundles.get(digest) !== undefined
      return state.actual(present, nowMs)
    })
    const orphans = Array.from(this.#orphans, (id) => ({ id }))
    return { desired, actual: { engine: this.#watch.state, functions, orphans } }
  }

  /** Tells the lanes whether calls without a handler should wait or be refused. */
  #announce(): void {
    for (const state of this.#functions.values()) {
      const reason = reasonOf(state, undefined)
      if (reason !== undefined && isHopeless(state)) state.lane?.setUnavailable(reason)
      else state.lane?.setStarting()
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    const nowMs = this.#shop.nowMs()
    const due = Array.from(this.#functions.values(), (state) =>
      state.refusal === undefined ? state.dueAtMs(nowMs) : nowMs + REFUSED_MS,
    )
    const atMs = Math.min(...due.filter((time) => time !== undefined))
    if (!Number.isFinite(atMs)) return
    this.#timer = setTimeout(() => this.#wake(), Math.max(1, Math.ceil(atMs - nowMs)))
    this.#timer.unref()
  }

  async #collectGarbage(): Promise<void> {
    const used = new Set<string>()
    for (const { assignment, previousDigest, held } of this.#functions.values()) {
      if (assignment !== undefined) used.add(assignment.artifact.digest)
      if (previousDigest !== undefined) used.add(previousDigest)
      for (const { handler } of held.values()) used.add(handler.record.digest)
    }
    try {
      const removed = await this.#shop.bundles.retain(used)
      if (removed.length > 0) this.#options.log.info({ removed }, 'bundles removed')
    } catch (error) {
      this.#options.log.warn({ [LOG_KEYS.err]: error }, 'bundles stay for now')
    }
  }

  async #survey(signal: AbortSignal): Promise<void> {
    const held = this.#allHeld()
    const expectedIds = new Set(
      held.filter(({ handler }) => handler.launched).map(({ handler }) => handler.id),
    )
    const observed = await this.#options.engine.list(signal)
    const { ids: folderIds, records } = this.#shop.folders.read()
    const knownIds = new Set(this.#allHeld().map(({ handler }) => handler.id))
    const result = survey({ observed, folderIds, records, expectedIds, knownIds })
    for (const exit of result.ended) this.#exited(exit)
    for (const record of result.found) this.#found(record)
    for (const id of result.orphanIds) this.#orphans.add(id)
    this.#wake()
  }

  #found(record: HandlerRecord): void {
    const handler = this.#shop.newHandler(record, 'found')
    this.#stateOf(record.fn).held.set(record.id, newHeld(handler, true))
  }

  #exited(exit: HandlerExit): void {
    for (const state of this.#functions.values()) state.held.get(exit.id)?.handler.exited(exit)
  }

  #engineIsBack(): void {
    for (const state of this.#functions.values()) {
      if (Fault.is(state.fault, 'ENGINE_UNAVAILABLE')) state.forgive()
    }
    this.#wake()
  }

  #changed(handler: Handler): void {
    const state = this.#functions.get(handler.record.fn)
    const held = state?.held.get(handler.id)
    if (
      state !== undefined &&
      held !== undefined &&
      handler.state.kind === 'failed' &&
      !held.counted
    ) {
      held.counted = true
      if (held.proven) state.restarts++
      // An outdated handler says nothing about the wanted one.
      if (handler.record.specDigest === state.spec) this.#shop.failed(state, handler.state.fault)
    }
    this.#wake()
  }

  #allHeld(): Held[] {
    return Array.from(this.#functions.values(), (state) => Array.from(state.held.values())).flat()
  }

  #stateOf(fn: string): FunctionState {
    const known = this.#functions.get(fn)
    if (known !== undefined) return known
    const state = new FunctionState(fn)
    this.#functions.set(fn, state)
    return state
  }

  #track(work: Promise<void>, works = this.#background): void {
    const ended = (error?: unknown): void => {
      works.delete(tracked)
      if (error !== undefined) this.#options.log.error({ [LOG_KEYS.err]: error }, 'step failed')
      this.#wake()
    }
    const tracked = work.then(() => ended(), ended)
    works.add(tracked)
  }

  #wake(): void {
    this.#woken.resolve()
  }

  async #close({ removeHandlers }: CloseOptions): Promise<void> {
    this.#over.abort()
    clearTimeout(this.#timer)
    this.#wake()
    await this.#watch.close()
    await this.#loop
    const held = this.#allHeld()
    const { drainMs, slots, log } = this.#shop
    const end = async ({ handler, lane, proven }: Held): Promise<void> => {
      const kind = handler.state.kind
      const sound = kind !== 'failed' && kind !== 'draining' && kind !== 'drained'
      const keep = !removeHandlers && sound && (proven || handler.wasReady)
      try {
        if (kind === 'serving' && lane !== undefined) await handler.drain(lane, drainMs)
        if (keep) await handler.leave()
        else await slots.stop.run(() => handler.stop(AbortSignal.timeout(drainMs + 5_000)))
      } catch (error) {
        log.warn({ [LOG_KEYS.handler]: handler.id, [LOG_KEYS.err]: error }, 'handler not removed')
      }
    }
    await Promise.all(held.map(end))
    await Promise.all([...this.#background, ...this.#lingering])
  }
}
