import type { FunctionReport, Reason } from '#shared/schemas/health.ts'

/** One reason of `/readyz`. */
export interface NotReady {
  readonly fn?: string
  readonly state: string
  readonly code?: string
  readonly message?: string
}

export interface ReadinessSources {
  readonly functions: () => readonly FunctionReport[]
  /** Why the engine is away, when it is. */
  readonly engineFault: () => Reason | undefined
  readonly stopping: () => boolean
  /** Why no front answers, when none does. */
  readonly blocked?: () => string | undefined
}

/** What `/readyz` says. */
export interface ReadinessView {
  /** Why devices should be sent to another node; none: this one serves. */
  readonly reasons: readonly NotReady[]
  /** Functions that nothing answers for: told, and no reason to take the others away from their callers. */
  readonly failing: readonly NotReady[]
  readonly functions: number
}

/**
 * Whether this node should be called at all. It should not
 *
 * - before each function that it was started with has served or failed once,
 * - while not one of its functions is served, or some are not because the engine is away,
 * - while no front answers, and while it stops.
 */
export class Readiness {
  readonly #sources: ReadinessSources
  #begun = false

  constructor(sources: ReadinessSources) {
    this.#sources = sources
  }

  view(): ReadinessView {
    const reports = this.#sources.functions()
    const failing = notServing(reports)
    const starting = failing.filter(({ state }) => state !== 'failed')
    this.#begun ||= starting.length === 0
    return {
      reasons: [...this.#reasons(reports, failing, starting)],
      failing,
      functions: reports.length,
    }
  }

  *#reasons(
    reports: readonly FunctionReport[],
    failing: readonly NotReady[],
    starting: readonly NotReady[],
  ): Generator<NotReady> {
    if (this.#sources.stopping()) yield { state: 'stopping' }
    const message = this.#sources.blocked?.()
    if (message !== undefined) yield { state: 'starting', message }
    // Without it what serves goes on serving, but nothing else can be started.
    const fault = failing.length > 0 ? this.#sources.engineFault() : undefined
    if (fault !== undefined) {
      yield { state: 'engine away', code: fault.code, message: fault.message }
    } else if (failing.length > 0 && failing.length === reports.length) yield* failing
    else if (!this.#begun) yield* starting
  }
}

/**
 * Functions that no release answers for. One that is switched to a new release, or whose new release fails, still answers, and so
 * does one that sleeps until it is called.
 */
export function notServing(reports: readonly FunctionReport[]): NotReady[] {
  return reports
    .filter(({ serving, state }) => serving.length === 0 && state !== 'ready')
    .map(({ fn, state, reason }) => Object.assign({ fn, state }, reason))
}
