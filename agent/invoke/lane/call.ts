import type { Fault, FaultCode } from '#shared/fault.ts'
import { CANCEL } from '../frames/index.ts'
import type { CancelReason } from '../frames/index.ts'
import type { LinkCall } from '../link/index.ts'
import type { CallerSignal, Invocation, Result } from '../model.ts'
import type { Attachment } from './attachment.ts'
import { leanFault } from './lean-fault.ts'
import type { Outcome } from './tally.ts'
import { WheelEntry } from './wheel.ts'

/** What a call tells its lane. */
export interface CallLane {
  readonly fn: string
  readonly bodyBytesMax: number
  /** What the function may take for a call, whatever its caller is ready to wait. */
  readonly timeoutMs: number
  /** How a function error is answered in place of the fault; undefined: with the fault. */
  answerTo(fault: Fault): Result | undefined
  /** Leaves the queue without having been sent. */
  unqueue(call: Call): void
  /** The caller has its outcome. Once per call. */
  settled(call: Call, outcome: Outcome): void
  /** The fault is none yet: the call is to be sent once more, by `retry` as soon as it has been released. */
  retries(call: Call, fault: Fault): boolean
  retry(call: Call): void
  /** The runner has ended it: there is room on the link. Once per call that was sent. */
  released(call: Call): void
  /** The runner has not ended it a second after the function's time for it was over. */
  overran(call: Call): void
  /** Arms the deadline anew. */
  rearm(call: Call, dueAtMs: number): void
  disarm(call: Call): void
}

/** A runner has this long to end a cancelled call after the function's time for it. */
export const OVERRUN_MS = 1_000

/**
 * One call from admission until its runner has ended it.
 *
 *       .--- once ------.
 *       v                |
 *     queued --sent--> running --answered(stream)--> streaming --released--> over
 *        \               | \---answered(whole) + released----------------> over
 *         \              \--failed, deadline, caller gone--> abandoned --released--> over
 *          \--deadline, caller gone, refused--> over
 */
export class Call extends WheelEntry implements LinkCall {
  readonly invocation: Invocation
  readonly startedAtMs: number
  readonly deadlineAtMs: number
  phase: 'queued' | 'running' | 'streaming' | 'abandoned' | 'over' = 'queued'
  /** It has been sent a second time, or is about to be. */
  retried = false
  slot = 0
  /** Where it was sent; undefined before. */
  at: Attachment | undefined
  sentAtMs = 0
  /** Neighbours in the list that it is in: of those that wait, or of those that were sent. */
  before: Call | undefined
  behind: Call | undefined
  readonly #lane: CallLane
  readonly #signal: CallerSignal | undefined
  readonly #resolve: (result: Result) => void
  readonly #reject: (fault: Fault) => void
  #outcome: Outcome = 'ok'
  #overdue = false

  constructor(
    lane: CallLane,
    invocation: Invocation,
    signal: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (fault: Fault) => void,
    startedAtMs: number,
    deadlineAtMs: number,
  ) {
    super()
    this.#lane = lane
    this.invocation = invocation
    this.#signal = signal
    this.#resolve = resolve
    this.#reject = reject
    this.startedAtMs = startedAtMs
    this.deadlineAtMs = deadlineAtMs
    signal?.addEventListener('abort', this)
  }

  get bodyBytesMax(): number {
    return this.#lane.bodyBytesMax
  }

  /** The caller's signal has aborted. */
  handleEvent(): void {
    const fault = leanFault('CALLER_GONE', `The caller of ${this.#lane.fn} has gone`, {
      request: this.invocation.requestId,
    })
    this.end(fault, CANCEL.callerGone)
  }

  override expire(nowMs: number): void {
    if (this.#overdue) return this.#lane.overran(this)
    this.#overdue = true
    if (this.phase !== 'abandoned') {
      const timeoutMs = Math.round(this.deadlineAtMs - this.startedAtMs)
      const where = this.phase === 'queued' ? 'was not free' : 'did not answer'
      const fault = leanFault(
        'DEADLINE_EXCEEDED',
        `${this.#lane.fn} ${where} within ${timeoutMs} ms`,
        { timeoutMs, request: this.invocation.requestId },
      )
      this.end(fault, CANCEL.deadline)
    }
    if (this.phase !== 'abandoned') return
    // The function's own time, and from when it got the call: else callers in a hurry could have handlers replaced.
    const functionDueAtMs = this.sentAtMs + this.#lane.timeoutMs
    this.#lane.rearm(this, Math.max(nowMs, functionDueAtMs) + OVERRUN_MS)
  }

  /** Ends it for the caller with this fault; a runner that works on it is asked to stop. No effect when the caller has its outcome. */
  end(fault: Fault, reason: CancelReason): void {
    switch (this.phase) {
      case 'queued':
        this.#lane.unqueue(this)
        return this.refuse(fault)
      case 'running':
        this.at?.link.cancel(this, reason, fault)
        return this.failed(fault)
      case 'streaming':
        // The stream breaks with the fault; the promise was resolved with it long ago.
        this.at?.link.cancel(this, reason, fault)
        return this.#abandon(outcomeOf(fault))
      case 'abandoned':
      case 'over':
    }
  }

  /** Ends it with a fault before it was sent, or when it could not be. */
  refuse(fault: Fault): void {
    this.phase = 'over'
    this.#lane.disarm(this)
    this.#signal?.removeEventListener('abort', this)
    this.#lane.settled(this, outcomeOf(fault))
    this.#reject(fault)
  }

  answered(result: Result): void {
    if (this.phase !== 'running') return
    this.phase = 'streaming'
    this.#outcome = result.status >= 500 ? 'failed' : 'ok'
    this.#resolve(result)
  }

  failed(fault: Fault): void {
    const before = this.phase
    if (before !== 'running' && before !== 'streaming') return
    if (before === 'running' && !this.retried && this.#lane.retries(this, fault)) {
      this.retried = true
      this.phase = 'queued'
      return
    }
    this.#abandon(outcomeOf(fault))
    if (before === 'streaming') return
    const answer = this.#lane.answerTo(fault)
    if (answer === undefined) this.#reject(fault)
    else this.#resolve(answer)
  }

  dropped(): void {
    if (this.phase === 'streaming') this.#abandon('cancelled')
  }

  released(): void {
    if (this.phase === 'queued') {
      this.#lane.released(this)
      return this.#lane.retry(this)
    }
    const streamed = this.phase === 'streaming'
    this.phase = 'over'
    this.#lane.disarm(this)
    this.#signal?.removeEventListener('abort', this)
    if (streamed) this.#lane.settled(this, this.#outcome)
    this.#lane.released(this)
  }

  #abandon(outcome: Outcome): void {
    this.phase = 'abandoned'
    this.#signal?.removeEventListener('abort', this)
    this.#lane.settled(this, outcome)
  }
}

/** Faults that are not the function's. */
const OUTCOMES: { readonly [code in FaultCode]?: Outcome } = {
  DEADLINE_EXCEEDED: 'timedOut',
  CALLER_GONE: 'cancelled',
  FUNCTION_SATURATED: 'refused',
  FUNCTION_UNAVAILABLE: 'refused',
  FUNCTION_UNKNOWN: 'refused',
  SHUTTING_DOWN: 'refused',
  REQUEST_INVALID: 'refused',
  BODY_TOO_LARGE: 'refused',
}

function outcomeOf(fault: Fault): Outcome {
  return OUTCOMES[fault.code] ?? 'failed'
}
