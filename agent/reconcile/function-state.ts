import type { Lane, LaneSettings } from '#agent/invoke/index.ts'
import { specDigestOf, type Handler, type HandlerState } from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { EngineKind, Runtime } from '#shared/schemas/names.ts'
import { backoffMs } from './backoff.ts'
import type { ActualFunction, ActualHandler, Desired, HandlerPhase } from './model.ts'

/** A handler has proved itself when it has served this long: earlier failures are forgotten. */
export const STABLE_MS = 10_000

/** One handler with what only the reconciler knows of it. */
export interface Held {
  readonly handler: Handler
  /** The lane it was attached to; a function removed and deployed again has another one. */
  lane: Lane | undefined
  proven: boolean
  servingSinceMs: number | undefined
  suspect: 'overrun' | 'blocked' | undefined
  /** Its adoption has been ordered. */
  adopting: boolean
  /** Its removal has been ordered. */
  leaving: boolean
  /** It failed outside of its own life (attach): treated as dead. */
  broken: boolean
  /** Its failure has been counted. */
  counted: boolean
  stopFailures: number
  stopRetryAtMs: number
}

const PHASES: { readonly [K in HandlerState['kind']]: HandlerPhase } = {
  created: 'starting',
  found: 'found',
  starting: 'starting',
  loading: 'starting',
  unlinked: 'starting',
  ready: 'ready',
  serving: 'serving',
  draining: 'draining',
  drained: 'drained',
  failed: 'dead',
  stopping: 'stopping',
  stopped: 'stopping',
  left: 'stopping',
}

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
  /** Why the last start, fetch or handler failed; forgotten once handlers are stable again. */
  fault: Fault | undefined
  /** Unplanned ends since the agent started. */
  restarts = 0
  /** Digests of bundles that it had before: kept for a quick way back. */
  previousDigest: string | undefined
  #assignment: Assignment | undefined
  #spec: string | undefined
  #identity: string | undefined
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

  /** Why nothing can be started of it now, whatever is tried. */
  get refusal(): Fault | undefined {
    return this.#refusal
  }

  /** A new wish starts with a clean record: it may be the very one that mends things. */
  assign(assignment: Assignment | undefined): void {
    const before = this.#assignment
    if (before?.artifact.digest !== assignment?.artifact.digest) {
      if (before !== undefined) this.previousDigest = before.artifact.digest
      this.fetching?.abort()
      this.fetching = undefined
    }
    if (JSON.stringify(before) === JSON.stringify(assignment)) return
    this.#assignment = assignment
    // At once, and not in the next round: a report in between must not take old handlers for the new ones.
    if (before?.runtime !== assignment?.runtime) this.#identity = undefined
    const identity = this.#identity
    this.#spec = assignment && identity && specDigestOf(assignment, identity)
    this.#routing = assignment === undefined ? '' : routingOf(assignment)
    this.forgive()
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
      this.#refusal = undefined
      this.#identity = identity
      this.#spec = specDigestOf(assignment, identity)
    }
  }

  #refuse(fault: Fault | undefined): void {
    this.#refusal = fault
    this.#identity = undefined
    this.#spec = undefined
  }

  forgive(): void {
    this.failures = 0
    this.retryAtMs = 0
    this.fault = undefined
  }

  fail(fault: Fault, nowMs: number, random: number): void {
    this.failures++
    this.fault = fault
    this.retryAtMs = nowMs + backoffMs(this.failures, random)
  }

  desired(): Desired | undefined {
    const assignment = this.#assignment
    if (assignment === undefined) return undefined
    const { replicas } = assignment.settings
    return { fn: this.fn, spec: this.#spec, replicas, routing: this.#routing }
  }

  actual(bundlePresent: boolean, nowMs: number): ActualFunction {
    this.#calm(nowMs)
    const bundle = bundlePresent ? 'present' : this.fetching === undefined ? 'absent' : 'fetching'
    const handlers = Array.from(this.held.values(), observe)
    const { fn, routing, failures, retryAtMs } = this
    return { fn, handlers, bundle, routing, failures, retryAtMs }
  }

  /** Earliest time at which something changes by itself; undefined: never. */
  dueAtMs(nowMs: number): number | undefined {
    const times: number[] = []
    if (this.failures > 0) {
      times.push(this.retryAtMs)
      for (const { servingSinceMs } of this.#serving()) times.push(servingSinceMs + STABLE_MS)
    }
    for (const { stopRetryAtMs } of this.held.values()) times.push(stopRetryAtMs)
    const coming = times.filter((time) => time > nowMs)
    return coming.length === 0 ? undefined : Math.min(...coming)
  }

  /** Handlers of the wanted kind that take calls. */
  servingCurrent(): number {
    return [...this.#serving()].length
  }

  #calm(nowMs: number): void {
    if (this.failures === 0) return
    for (const { servingSinceMs, suspect } of this.#serving()) {
      if (suspect === undefined && nowMs - servingSinceMs >= STABLE_MS) return this.forgive()
    }
  }

  *#serving(): Generator<Held & { servingSinceMs: number }> {
    for (const held of this.held.values()) {
      const { handler, servingSinceMs } = held
      if (handler.state.kind !== 'serving' || servingSinceMs === undefined) continue
      if (handler.record.specDigest === this.#spec) yield { ...held, servingSinceMs }
    }
  }
}

export function newHeld(handler: Handler, proven: boolean): Held {
  return {
    handler,
    lane: undefined,
    proven,
    servingSinceMs: undefined,
    suspect: undefined,
    adopting: false,
    leaving: false,
    broken: false,
    counted: false,
    stopFailures: 0,
    stopRetryAtMs: 0,
  }
}

/** The settings that only the lane applies. */
export function laneSettingsOf(assignment: Assignment, bodyBytesMax: number): LaneSettings {
  const { concurrency, queue, timeoutMs, errors } = assignment.settings
  return { concurrency, queue, timeoutMs, errors, bodyBytesMax }
}

function routingOf(assignment: Assignment): string {
  return JSON.stringify(laneSettingsOf(assignment, 0))
}

function observe(held: Held): ActualHandler {
  const { handler, suspect, proven, stopRetryAtMs } = held
  return {
    id: handler.id,
    spec: handler.record.specDigest,
    phase: phaseOf(held),
    proven,
    ...(suspect === undefined ? {} : { suspect }),
    ...(stopRetryAtMs === 0 ? {} : { retryAtMs: stopRetryAtMs }),
  }
}

function phaseOf({ handler, adopting, leaving, broken }: Held): HandlerPhase {
  const phase = PHASES[handler.state.kind]
  if (leaving || phase === 'stopping') return 'stopping'
  if (broken) return 'dead'
  return phase === 'found' && adopting ? 'starting' : phase
}
