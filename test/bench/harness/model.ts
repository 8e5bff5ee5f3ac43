/** One question that the bench answers, e.g. "HTTP: how many calls a second?". */
export interface Question {
  /** `[a-z-]+`: also the name of its chart. */
  readonly id: string
  readonly title: string
  /** What `value` counts, e.g. `calls/s`, `ms`, `MiB`. */
  readonly unit: string
  readonly better: 'more' | 'less'
  readonly rows: readonly Row[]
}

/** What one contestant reached under one condition. */
export interface Row {
  /** Rows that may be compared with each other, e.g. `32 connections`. */
  readonly group: string
  readonly name: string
  readonly median: number
  readonly min: number
  readonly max: number
  /** Of the group's yardstick, the row whose name begins with `bare`; absent when there is none. */
  readonly ratio?: number
  readonly p50Ms?: number
  readonly p99Ms?: number
  readonly errors?: number
}

export interface Results {
  readonly command: string
  readonly machine: Readonly<Record<string, string | number>>
  readonly questions: readonly Question[]
}

/** How long and how often; the same for all contestants. */
export interface Plan {
  readonly rounds: number
  readonly secondsPerRound: number
  /** Another commit that takes part, as a checkout. */
  readonly against: OtherTree | undefined
  /** Says what is going on. */
  readonly say: (text: string) => void
}

export interface OtherTree {
  /** As it was given: part of its contestants' names. */
  readonly ref: string
  readonly path: string
}

/** Gives the answers; everything that it starts has ended when it returns. */
export type Suite = (plan: Plan) => Promise<readonly Question[]>
