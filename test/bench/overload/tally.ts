import { quantile } from '../calls/load.ts'
import type { Outcomes, Times } from './report.ts'

/** How one call ended. */
export type Ending =
  | { readonly kind: 'answered' }
  | { readonly kind: 'refused'; readonly hint: boolean }
  | { readonly kind: 'other' }

/** What became of the calls of one protocol. */
export class Tally {
  readonly #deadlineMs: number
  readonly #answered: number[] = []
  readonly #refused: number[] = []
  #late = 0
  #withoutHint = 0
  #other = 0

  constructor(deadlineMs: number) {
    this.#deadlineMs = deadlineMs
  }

  add(ending: Ending, tookMs: number): void {
    switch (ending.kind) {
      case 'answered':
        this.#answered.push(tookMs)
        if (tookMs > this.#deadlineMs) this.#late += 1
        break
      case 'refused':
        this.#refused.push(tookMs)
        if (!ending.hint) this.#withoutHint += 1
        break
      case 'other':
        this.#other += 1
    }
  }

  /** Answered before their deadline, so far. */
  get inTime(): number {
    return this.#answered.length - this.#late
  }

  outcomes(): Outcomes {
    return {
      answered: times(this.#answered),
      late: this.#late,
      refused: times(this.#refused),
      withoutHint: this.#withoutHint,
      other: this.#other,
    }
  }
}

function times(values: readonly number[]): Times {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number): number => Number(quantile(sorted, share).toFixed(3))
  return { count: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99) }
}
