import type { Assignment } from '#shared/schemas/command.ts'
import { backoffMs } from './backoff.ts'

/**
 * The release that served before the wanted one. An earlier command named it, so it may run; it does again when its handlers
 * have gone while the wanted release fails and has never served.
 */
export class Fallback {
  readonly assignment: Assignment
  /** See `Engine.identity`. */
  readonly identity: string
  readonly spec: string
  failures = 0
  /** Not to be started before; monotonic milliseconds. */
  retryAtMs = 0

  constructor(assignment: Assignment, identity: string, spec: string) {
    this.assignment = assignment
    this.identity = identity
    this.spec = spec
  }

  /** @param stable - it had served for a while: earlier failures are forgotten */
  fail(stable: boolean, nowMs: number, random: number): void {
    this.failures = stable ? 1 : this.failures + 1
    this.retryAtMs = nowMs + backoffMs(this.failures, random)
  }
}
