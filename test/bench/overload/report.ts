/** What the callers do. */
export interface OverloadPlan {
  readonly http: number
  readonly grpc: number
  readonly coap: number
  readonly fn: string
  readonly durationMs: number
  readonly deadlineMs: number
  /** Over HTTP, each again as soon as it was answered. */
  readonly closedLoop?: number
  /** Over HTTP, so many begin each second, whatever becomes of them. */
  readonly perSecond?: number
  /** Beside them, over gRPC and over CoAP. */
  readonly probesPerSecond?: number
}

export type Protocol = 'http' | 'grpc' | 'coap'

/** Times of calls that ended alike, in milliseconds. */
export interface Times {
  readonly count: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** What became of the calls of one protocol. */
export interface Outcomes {
  readonly answered: Times
  /** Answered, but after their deadline. */
  readonly late: number
  readonly refused: Times
  /** Refused without a word about when to come back. */
  readonly withoutHint: number
  /** Anything else: failures, and no answer at all. */
  readonly other: number
}

export interface OverloadReport {
  /** Answered before their deadline, by all protocols, while calls were still being made: the queue's rest is no goodput. */
  readonly inTime: number
  readonly outcomes: Readonly<Record<Protocol, Outcomes>>
  /** How late the generator's own event loop was: far below what it measures, or the figures mean nothing. */
  readonly lagP99Ms: number
  /** Of one core. */
  readonly cpuShare: number
}
