import type { Lane, LaneSettings } from '#agent/invoke/index.ts'
import { specDigestOf } from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { EngineKind, Runtime } from '#shared/schemas/names.ts'
import { backoffMs } from './backoff.ts'
import { Fallback } from './fallback.ts'
import { isOpening, observe, type Held } from './held.ts'
import type { ActualFunction, Desired } from './model.ts'
import { ASLEEP, rescale, rescaleDueAtMs, scaleOf } from './plan/index.ts'
import type { Demand, Level, Scale } from './plan/index.ts'

/** A handler has proved itself when it has served this long without a failure: earlier ones are forgotten. */
export const STABLE_MS = 10_000
/** Failures in a row that a function that has served may have: the pause after them is shorter than a caller's patience. */
export const PASSING_MAX = 3

/** All that is known of one function on this node: wanted or still on its way out. Times are monotonic milliseconds. */
export class FunctionState {
  readonly fn: string
  readonly held = new Map<string, Held>()
  lane: Lane | undefined
  /** Settings the lane has, as one string. */
  routing: string | undefined
  /** Ends the fetch under way. */
  fetching: AbortController | undefined
  failures = 0
  retryAtMs = 0
  #failedAtMs = 0
  /** When `failures` rose last. */
  #countedAtMs = 0
  /** Why the last start, fetch or handler failed; forgotten once handlers are stable again. */
  fault: Fault | undefined
  /** Unplanned ends since the agent started. */
  restarts = 0
  /** Digests of bundles that it had before: kept for a quick way back. */
  previousDigest: string | undefined
  /** Its memory does not suffice for the handlers that its calls need. */
  limited = false
  #level: Level = ASLEEP
  #demand: Demand = NO_DEMAND
  /** The wanted handlers have served here, or are taken for such. */
  #proven = false
  /** `#proven` is only the word of an earlier agent. */
  #presumed = false
  /** Ids of handlers that an earlier agent has left and that have not been looked at yet: which are wanted is known later. */
  readonly #found = new Set<string>()
  #fallback: Fallback | undefined
  #assignment: Assignment | undefined
  #spec: string | undefined
  #identity: string | undefined
  /** As `#identity`, also while it cannot be had. */
  #identityLast: string | undefined
  /** Why there is no `spec`. */
  #refusal: Fault | undefined
  #routing = ''

  constructor(fn: string) {
    this.fn = fn
  }

  get assignment(): Assignment | undefined {
    return this.#assignment
  }

  /** Of the wanted handlers, see `Desired.spec`. */
  get spec(): string | undefined {
    return this.#spec
  }

  /** What the engine makes its handlers of, see `Engine.identity`. */
  get identity(): string | undefined {
    return this.#identity
  }

  /** Settings the lane shall have. */
  get routingWanted(): string {
    return this.#routing
  }

  /** The wanted handlers have served here, now or under an earlier agent. */
  get proven(): boolean {
    return this.#proven
  }

  /** As `proven`, and seen: one serves or has served, or an earlier agent has left one. */
  get hasServed(): boolean {
    return this.#proven && !this.#presumed
  }

  /** The release that served before the wanted one, until that has. */
  get fallback(): Fallback | undefined {
    return this.#fallback
  }

  get scale(): Scale | undefined {
    return this.#assignment && scaleOf(this.#assignment.settings)
  }

  /** Why nothing can be started of it now, whatever is tried. */
  get refusal(): Fault | undefined {
    return this.#refusal
  }

  /**
   * A new wish starts with a clean record: it may be the very one that mends things.
   *
   * @param kept - an earlier agent was told the same: that it runs need not be shown again
   */
  assign(given: Assignment | undefined, kept = false): void {
    const assignment = given && effective(given)
    const before = this.#assignment
    const spec = this.#spec
    const identity = this.#identity
    if (before?.artifact.digest !== assignment?.artifact.digest) {
      if (before !== undefined) this.previousDigest = before.artifact.digest
      this.fetching?.abort()
      this.fetching = undefined
    }
    if (JSON.stringify(before) === JSON.stringify(assignment)) return
    this.#assignment = assignment
    // At once, and not in the next round: a report in between must not take old handlers for the new ones.
    if (before?.runtime !== assignment?.runtime) {
      this.#identity = undefined
      this.#identityLast = undefined
    }
    this.#spec = assignment && this.#identity && specDigestOf(assignment, this.#identity)
    this.#routing = assignment === undefined ? '' : routingOf(assignment)
    this.forgive()
    if (spec !== undefined && spec === this.#spec) return
    if (this.#proven && before !== undefined && spec !== undefined && identity !== undefined) {
      this.#fallback = new Fallback(before, identity, spec)
    }
    const isBack = this.#spec !== undefined && this.#spec === this.#fallback?.spec
    this.#proven = kept || isBack
    this.#presumed = kept && !isBack
    if (this.#proven || assignment === undefined) this.#fallback = undefined
  }

  /** Handlers of this spec serve. */
  served(spec: string, nowMs: number): void {
    if (spec !== this.#spec) return
    this.#presumed = false
    if (this.#proven) return
    this.#proven = true
    // Its time to sleep begins when it could have been called.
    this.#level = { ...this.#level, awakeSinceMs: nowMs }
    this.#fallback = undefined
  }

  /** Something of it runs already: it is not put to sleep before it has been idle for its time. */
  found(id: string, nowMs: number): void {
    this.#found.add(id)
    if (this.#level.count === 0) this.#level = { count: 1, awakeSinceMs: nowMs }
  }

  /** Decides how many handlers it shall have now, and has the lane tell when that is too few. */
  rescale(nowMs: number): void {
    const { scale, lane } = this
    if (scale === undefined) return
    this.#takeFound(scale, nowMs)
    // Not only when they are attached: those of an image that is put back have served on, though another was wanted meanwhile.
    if (this.#spec !== undefined && this.servingCurrent() > 0) this.served(this.#spec, nowMs)
    const { inFlight = 0, waiting = 0, peak = 0, lastCallAtMs = 0 } = lane?.takeDemand() ?? {}
    const used = [...this.held.values()].filter(({ spent }) => spent).length
    // Also when it is refused: nothing could be started of it, and all that sleep would wake together once images can be read again.
    const maySleep = this.#proven && this.failures === 0
    const calls = scale.fresh ? waiting : inFlight + waiting
    const demand = { calls, peak: scale.fresh ? calls : peak, used, lastCallAtMs, maySleep }
    this.#demand = demand
    this.#level = rescale(this.#level, scale, demand, nowMs)
    const { count } = this.#level
    const room = count + used < scale.max
    const busy = count * scale.perHandler + (scale.fresh ? inFlight : 0)
    lane?.alarmAbove(room ? busy : Number.POSITIVE_INFINITY)
  }

  /**
   * As many as calls had needed under an earlier agent, which is not known otherwise: to begin with the minimum would remove the
   * others while calls are on their way to them. Those that are too many go as ever, when fewer have done for a while.
   */
  #takeFound(scale: Scale, nowMs: number): void {
    if (this.#spec === undefined || this.#found.size === 0) return
    const found = [...this.held.values()].filter(({ handler }) => {
      return this.#found.has(handler.id) && handler.record.specDigest === this.#spec
    })
    this.#found.clear()
    if (found.length > 0) this.#presumed = false
    const running = found.filter(({ foundPaused }) => !foundPaused).length
    const count = scale.fresh ? 0 : Math.min(scale.max, running)
    if (count > this.#level.count) this.#level = { count, awakeSinceMs: nowMs }
  }

  /** Settles which handlers are wanted, from what the engine would make them of. */
  resolve(kind: EngineKind, identities: ReadonlyMap<Runtime, string | Fault>): void {
    const assignment = this.#assignment
    const made = assignment && identities.get(assignment.runtime)
    const [identity, fault] = made instanceof Fault ? [undefined, made] : [made, undefined]
    if (assignment?.settings.requireContainers === true && kind === 'process') {
      this.#refuse(
        new Fault(
          'CONTAINERS_REQUIRED',
          `${this.fn} may only run in containers, and this node runs plain processes: install Docker, or deploy it without requireContainers`,
        ),
      )
    } else if (assignment === undefined || identity === undefined) {
      this.#refuse(fault)
    } else if (identity !== this.#identity) {
      // The runtime's image was made anew, or has come at last: perhaps that is what was wrong.
      if (this.#refusal !== undefined || this.#identity !== undefined) this.forgive()
      const isOther = this.#identityLast !== undefined && this.#identityLast !== identity
      this.#refusal = undefined
      this.#identity = identity
      this.#identityLast = identity
      this.#spec = specDigestOf(assignment, identity)
      const isBack = this.#spec === this.#fallback?.spec
      if (isOther || isBack) this.#fallback = undefined
      if (isOther) this.#proven = false
      if (isBack) this.#proven = true
      if (isOther || isBack) this.#presumed = false
    }
  }

  #refuse(fault: Fault | undefined): void {
    this.#refusal = fault
    this.#identity = undefined
    this.#spec = undefined
  }

  /**
   * A handler that was there for one call has it. No handler of such a function serves for long: to have come so far since the
   * last failure is proof enough, or a single one would count until its calls cease.
   */
  spent({ handler, servingSinceMs }: Held): void {
    if (handler.record.specDigest !== this.#spec || servingSinceMs === undefined) return
    if (servingSinceMs > this.#failedAtMs) this.forgive()
  }

  forgive(): void {
    this.failures = 0
    this.retryAtMs = 0
    this.fault = undefined
  }

  /**
   * @param sinceMs - when that began which failed. What was there at the last failure is no try after it: handlers that end
   * together, as all do whose engine is restarted, are one failure, or the pause would be as long as after so many tries.
   */
  fail(fault: Fault, nowMs: number, random: number, sinceMs = nowMs): void {
    this.fault = fault
    this.#failedAtMs = nowMs
    if (this.failures > 0 && sinceMs < this.#countedAtMs) {
      // The last that served well, and long: it need not wait for the pause of others, which have failed to join it.
      const servedLong = nowMs - sinceMs >= STABLE_MS
      if (servedLong && this.#sound().length === 0) this.#count(1, nowMs, random)
      return
    }
    this.#countedAtMs = nowMs
    const failures = this.failures + 1
    // Where others serve well it is calls that end handlers. With longer pauses there would be fewer and fewer for all the calls.
    const bearable = fault.code === 'FUNCTION_EXITED' && this.#servesWell(nowMs)
    this.#count(
      bearable ? Math.max(this.failures, Math.min(failures, PASSING_MAX)) : failures,
      nowMs,
      random,
    )
  }

  #count(failures: number, nowMs: number, random: number): void {
    this.failures = failures
    this.retryAtMs = nowMs + backoffMs(this.failures, random)
  }

  /**
   * @param keepMs - how long a handler of the release before is kept, 0: not at all
   * @param hasBundle - by digest
   */
  desired(keepMs: number, hasBundle: (digest: string) => boolean): Desired | undefined {
    const { fn, scale } = this
    const assignment = this.#assignment
    if (assignment === undefined || scale === undefined) return undefined
    const fallback = this.#fallback
    const startable = fallback !== undefined && hasBundle(fallback.assignment.artifact.digest)
    return {
      fn,
      spec: this.#spec,
      replicas: this.#level.count,
      replicasMin: scale.min,
      memoryMiB: assignment.settings.memoryMiB,
      sleeps: scale.min === 0 && scale.idleMs > 0,
      keeps: keepMs > 0,
      routing: this.#routing,
      ...(startable ? { fallback: { spec: fallback.spec, retryAtMs: fallback.retryAtMs } } : {}),
    }
  }

  actual(bundlePresent: boolean, keepMs: number, nowMs: number): ActualFunction {
    this.#calm(nowMs)
    const bundle = bundlePresent ? 'present' : this.fetching === undefined ? 'absent' : 'fetching'
    const handlers = Array.from(this.held.values(), (held) =>
      observe(held, this.#pausedMs(held, keepMs)),
    )
    const { fn, routing, failures, retryAtMs } = this
    return { fn, handlers, bundle, routing, failures, retryAtMs }
  }

  /** Earliest time at which something changes by itself; undefined: never. */
  dueAtMs(keepMs: number, nowMs: number): number | undefined {
    const { scale } = this
    const times: number[] = []
    if (this.failures > 0) {
      times.push(this.retryAtMs, this.#fallback?.retryAtMs ?? 0)
      times.push(this.#calmAtMs() ?? 0)
    }
    for (const held of this.held.values()) {
      times.push(held.stopRetryAtMs)
      if (held.pausedAtMs !== undefined) {
        times.push(held.pausedAtMs + this.#pausedMs(held, keepMs))
      }
    }
    if (scale !== undefined) {
      times.push(rescaleDueAtMs(this.#level, scale, this.#demand, nowMs) ?? 0)
    }
    const coming = times.filter((time) => time > nowMs)
    return coming.length === 0 ? undefined : Math.min(...coming)
  }

  /** Handlers of the wanted kind that take calls. */
  servingCurrent(): number {
    return [...this.#serving()].length
  }

  servesOutdated(): boolean {
    return this.held.values().some(({ handler: { state, record } }) => {
      return state.kind === 'serving' && record.specDigest !== this.#spec
    })
  }

  #pausedMs({ handler }: Held, keepMs: number): number {
    const removeMs = this.scale?.removeMs ?? 0
    // It may turn out to be the wanted one.
    if (this.#spec === undefined) return Math.max(removeMs, keepMs)
    return handler.record.specDigest === this.#spec ? removeMs : keepMs
  }

  #calm(nowMs: number): void {
    if (this.failures > 0 && nowMs >= (this.#calmAtMs() ?? Number.POSITIVE_INFINITY)) this.forgive()
  }

  /** When failures are forgotten if nothing happens until then; undefined: something has to happen before. */
  #calmAtMs(): number | undefined {
    // What is tried now may be the next failure.
    if (this.fetching !== undefined || this.held.values().some(isOpening)) return undefined
    const sound = this.#sound()
    if (sound.length === 0) return undefined
    const servingSinceMs = Math.min(...sound.map((one) => one.servingSinceMs))
    // One that serves well says nothing about the others: the last failure, too, must be a while ago, and the pause after it.
    return Math.max(servingSinceMs, this.#failedAtMs, this.retryAtMs) + STABLE_MS
  }

  #servesWell(nowMs: number): boolean {
    return this.#sound().some(({ servingSinceMs }) => nowMs - servingSinceMs >= STABLE_MS)
  }

  #sound(): { readonly servingSinceMs: number }[] {
    return [...this.#serving()].filter(({ suspect }) => suspect === undefined)
  }

  *#serving(): Generator<Held & { servingSinceMs: number }> {
    for (const held of this.held.values()) {
      const { handler, servingSinceMs } = held
      if (handler.state.kind !== 'serving' || servingSinceMs === undefined) continue
      if (handler.record.specDigest === this.#spec) yield { ...held, servingSinceMs }
    }
  }
}

const NO_DEMAND: Demand = { calls: 0, peak: 0, used: 0, lastCallAtMs: 0, maySleep: false }

/** With isolation, a handler has one call at a time, and its runner is told so. */
function effective(assignment: Assignment): Assignment {
  const { settings } = assignment
  const { isolation = 'shared' } = settings
  if (isolation === 'shared') return assignment
  return { ...assignment, settings: { ...settings, concurrency: 1 } }
}

/** The settings that only the lane applies. */
export function laneSettingsOf(assignment: Assignment, bodyBytesMax: number): LaneSettings {
  const { concurrency, queue, timeoutMs, errors, idempotent = false } = assignment.settings
  return { concurrency, queue, timeoutMs, errors, idempotent, bodyBytesMax }
}

function routingOf(assignment: Assignment): string {
  return JSON.stringify(laneSettingsOf(assignment, 0))
}
