import { setTimeout as sleep } from 'node:timers/promises'
import {
  Handler,
  HandlerFolders,
  type HandlerExit,
  type HandlerRecord,
  SparePool,
} from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { FunctionReport } from '#shared/schemas/health.ts'
import { apply, type Workshop } from './apply.ts'
import { EngineWatch } from './engine-watch.ts'
import { endHandler, removeRest } from './end-handler.ts'
import { FunctionState, STABLE_MS } from './function-state.ts'
import { collectGarbage } from './garbage.ts'
import { isOpening, newHeld, type Held } from './held.ts'
import type { Actual, Desired } from './model.ts'
import { fitMemory, plan } from './plan/index.ts'
import type { CloseOptions, ReconcilerOptions } from './options.ts'
import { isHopeless, reasonOf, reportOf } from './report.ts'
import { Slots } from './slots.ts'
import { tendSpares } from './spares.ts'
import { resolveSpecs } from './specs.ts'
import { survey } from './survey.ts'

/** Between two rounds: events that come together are handled together. */
const PAUSE_MS = 2
/** A function that cannot be started here is looked at again so often: an image may have come. */
const REFUSED_MS = 2_000
const KEEP_MS = 600_000

/** Monotonic: the wall clock may jump, pauses must not. */
const monotonicMs = (): number => performance.now()

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

  /**
   * What shall run here, all of it: a function that is not named is removed.
   *
   * @param kept - as an earlier agent was told already: functions that sleep are not started to show that they run
   */
  setDesired(assignments: readonly Assignment[], kept = false): void {
    const names = new Set(assignments.map(({ fn }) => fn))
    for (const [fn, state] of this.#functions) if (!names.has(fn)) state.assign(undefined)
    for (const assignment of assignments) {
      const { fn } = assignment
      const state = this.#stateOf(fn)
      state.assign(assignment, kept)
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
      .map((state) => reportOf(state, this.#watch.fault, this.#wallMs))
      .filter((report) => report !== undefined)
  }

  /** Why the engine is away, when it is. */
  get engineFault(): Fault | undefined {
    return this.#watch.fault
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

  /** The wall clock's time of a monotonic one. */
  readonly #wallMs = (atMs: number): number =>
    Math.round(this.#options.clock.nowMs() + atMs - monotonicMs())

  #openShop(folders: HandlerFolders): Workshop {
    const { engine, router, bundles, log, clock, timeouts = {} } = this.#options
    const { drainMs = 5_000, startsMax = 4, bodyBytesMax = LIMITS.bodyBytesMax } = this.#options
    const { onLog, onStarted, random = Math.random, spares = 0 } = this.#options
    const helloMs = timeouts.helloMs === undefined ? {} : { helloMs: timeouts.helloMs }
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
      wake: () => this.#wake(),
      spares: new SparePool({ engine, folders, log, count: spares, ...helloMs }),
      newHandler: (record, origin, spare) => {
        const onChange = (handler: Handler): void => this.#changed(handler)
        return new Handler({ ...common, record, onChange, spare }, origin)
      },
      track: (work) => this.#track(work),
      linger: (work) => this.#track(work, this.#lingering),
      failed: (state, error, sinceMs) => {
        const fault = Fault.from(error)
        state.fail(fault, monotonicMs(), random(), sinceMs)
        log.warn(
          { [LOG_KEYS.fn]: state.fn, [LOG_KEYS.err]: fault, failures: state.failures },
          'function failed',
        )
        if (fault.code === 'ENGINE_UNAVAILABLE') this.#watch.lost(fault)
        this.#wake()
      },
      engineLost: (fault) => this.#watch.lost(fault),
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
    await resolveSpecs(this.#options.engine, this.#functions.values())
    if (this.#over.signal.aborted) return
    // One time for the whole round: what is due between two looks at the clock would be forgotten.
    const nowMs = this.#shop.nowMs()
    const { desired, actual, sparesMiB } = this.#observe(nowMs)
    const steps = plan(desired, actual, nowMs)
    for (const step of steps) apply(this.#shop, step)
    const calm = steps.length === 0 && this.#isCalm()
    tendSpares(this.#shop.spares, this.#functions.values(), sparesMiB, calm)
    this.#announce()
    this.#schedule(nowMs)
    if (steps.length > 0) {
      // Looks again at once: a step that is done within its round has no end that would wake the loop.
      this.#calm = false
      this.#wake()
      return
    }
    // Before the first survey nobody knows which bundles are in use.
    if (this.#background.size > 0 || this.#watch.state === 'lost') return
    if (!this.#calm) this.#track(collectGarbage(this.#shop))
    else if (this.#lingering.size === 0) {
      this.#settled.resolve()
      this.#settled = Promise.withResolvers()
    }
    this.#calm = true
  }

  #observe(nowMs: number): {
    readonly desired: readonly Desired[]
    readonly actual: Actual
    readonly sparesMiB: number
  } {
    const { keepMs = KEEP_MS, memoryBudgetMiB = Number.POSITIVE_INFINITY } = this.#options
    const hasBundle = (digest: string): boolean => this.#shop.bundles.get(digest) !== undefined
    const states = [...this.#functions.values()]
    const functions = states.map((state) => {
      const digest = state.assignment?.artifact.digest
      return state.actual(digest !== undefined && hasBundle(digest), keepMs, nowMs)
    })
    for (const state of states) state.rescale(nowMs)
    const wishes = states
      .map((state) => state.desired(keepMs, hasBundle))
      .filter((want) => want !== undefined)
    const { desired, giveUp, limited, sparesMiB } = fitMemory(wishes, functions, memoryBudgetMiB)
    for (const state of states) state.limited = limited.has(state.fn)
    const orphans = Array.from(this.#orphans, (id) => ({ id }))
    return { desired, sparesMiB, actual: { engine: this.#watch.state, functions, orphans, giveUp } }
  }

  /** Nobody waits for the engine to start something. */
  #isCalm(): boolean {
    if (this.#watch.state === 'lost') return false
    const states = this.#functions.values().toArray()
    if (states.some(({ fetching }) => fetching !== undefined)) return false
    return !this.#allHeld().some(isOpening)
  }

  /** Tells the lanes whether calls without a handler should wait or be refused. */
  #announce(): void {
    for (const state of this.#functions.values()) {
      const reason = reasonOf(state, undefined)
      if (reason !== undefined && isHopeless(state)) state.lane?.setUnavailable(reason)
      else state.lane?.setStarting()
    }
  }

  #schedule(nowMs: number): void {
    clearTimeout(this.#timer)
    const { keepMs = KEEP_MS } = this.#options
    const due = Array.from(this.#functions.values(), (state) =>
      state.refusal === undefined ? state.dueAtMs(keepMs, nowMs) : nowMs + REFUSED_MS,
    )
    const atMs = Math.min(...due.filter((time) => time !== undefined))
    if (!Number.isFinite(atMs)) return
    this.#timer = setTimeout(() => this.#wake(), Math.max(1, Math.ceil(atMs - this.#shop.nowMs())))
    this.#timer.unref()
  }

  async #survey(signal: AbortSignal): Promise<void> {
    const held = this.#allHeld()
    const expectedIds = new Set(
      held.filter(({ handler }) => handler.launched).map(({ handler }) => handler.id),
    )
    const observed = await this.#options.engine.list(signal)
    const { ids: folderIds, records } = this.#shop.folders.read()
    const heldIds = this.#allHeld().map(({ handler }) => handler.id)
    const knownIds = new Set([...heldIds, ...this.#shop.spares.ids])
    const result = survey({ observed, folderIds, records, expectedIds, knownIds })
    for (const exit of result.ended) this.#exited(exit)
    for (const { record, paused } of result.found) this.#found(record, paused)
    for (const id of result.orphanIds) this.#orphans.add(id)
    this.#wake()
  }

  #found(record: HandlerRecord, paused: boolean): void {
    const state = this.#stateOf(record.fn)
    // One that was paused took no calls: when it is outdated, nobody misses it.
    const nowMs = this.#shop.nowMs()
    const handler = this.#shop.newHandler(record, 'found')
    state.held.set(record.id, newHeld(handler, nowMs, !paused, paused))
    state.found(record.id, nowMs)
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
    if (state !== undefined && held !== undefined) {
      if (handler.state.kind === 'paused') held.pausedAtMs ??= this.#shop.nowMs()
      if (handler.state.kind === 'failed') this.#failed(state, held, handler.state.fault)
    }
    this.#wake()
  }

  #failed(state: FunctionState, held: Held, fault: Fault): void {
    if (held.counted) return
    held.counted = true
    const { log, random = Math.random } = this.#options
    const { handler } = held
    if (held.resting && held.pausedAtMs === undefined) {
      const { id } = handler
      log.warn(
        { [LOG_KEYS.fn]: state.fn, [LOG_KEYS.handler]: id, [LOG_KEYS.err]: fault },
        'handler not paused',
      )
    }
    // Nobody waits for one that is paused, or was to be: counted, it would keep a function awake whose handlers cannot be paused.
    // And one that was there for a single call concerns nobody else.
    if (held.resting || held.spent) return
    if (held.proven) state.restarts++
    const nowMs = this.#shop.nowMs()
    const { specDigest } = handler.record
    // An outdated handler says nothing about the wanted one.
    if (specDigest === state.spec) this.#shop.failed(state, fault, held.sinceMs)
    else if (specDigest === state.fallback?.spec) {
      const { servingSinceMs = nowMs } = held
      state.fallback.fail(nowMs - servingSinceMs >= STABLE_MS, nowMs, random())
    }
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
    const shop = this.#shop
    const ends = this.#allHeld().map((held) => endHandler(shop, held, removeHandlers))
    await Promise.all([...ends, shop.spares.close()])
    await Promise.all([...this.#background, ...this.#lingering])
    if (removeHandlers) await removeRest(shop)
  }
}
