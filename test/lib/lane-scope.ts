import { Fault } from '#shared/fault.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import type {
  InvokeRouterOptions,
  Invocation,
  Lane,
  LaneSettings,
  Result,
  RunnerLink,
} from '#agent/invoke/index.ts'
import { TimerWheel } from '#agent/invoke/lane/index.ts'
import { TYPE } from './frame-peer.ts'
import { LANE_SETTINGS, invocation } from './invoke-scope.ts'
import { MemoryRunner } from './memory-runner.ts'

/** How a call ended, as often as it ended: more than one entry is a bug. */
export interface Watched {
  readonly outcomes: (Result | Fault)[]
  /** `ok 200`, a fault's code, or `open`. */
  readonly outcome: string
}

/** A router with one lane, runners in memory, and a clock that only `pass` moves. */
export class LaneScope {
  readonly runners: MemoryRunner[] = []
  readonly overruns: RunnerLink[] = []
  readonly spent: RunnerLink[] = []
  /** How often it was said that calls wait. */
  demands = 0
  readonly logged: object[] = []
  readonly router: InvokeRouter
  readonly wheel: TimerWheel
  readonly lane: Lane
  /** Requests that `requests` has seen: request id, and where it is. */
  readonly seen = new Map<string, { runner: MemoryRunner; id: number; cancelled: boolean }>()
  #nowMs = 1_000

  constructor(
    settings: Partial<LaneSettings> = {},
    options: Pick<
      InvokeRouterOptions,
      'asyncMax' | 'asyncBytesMax' | 'callsMax' | 'busyPollMicros'
    > = {},
  ) {
    this.wheel = new TimerWheel({ nowMs: () => this.#nowMs, ticking: false })
    this.router = new InvokeRouter({
      log: {
        info: (fields) => this.logged.push(fields),
        warn: (fields) => this.logged.push(fields),
      },
      wheel: this.wheel,
      ...options,
    })
    this.lane = this.router.ensure(
      'echo',
      { ...LANE_SETTINGS, ...settings },
      {
        onOverrun: (link) => this.overruns.push(link),
        onDemand: () => (this.demands += 1),
        onSpent: (link) => this.spent.push(link),
      },
    )
  }

  runner(windowBytes?: number): MemoryRunner {
    const runner = new MemoryRunner(`h${this.runners.length + 1}`, () => this.#nowMs, windowBytes)
    this.runners.push(runner)
    return runner
  }

  /** A runner that takes calls. */
  attached(release = 'r1-0a1b2c3d', concurrency?: number, callsMax?: number): MemoryRunner {
    const runner = this.runner()
    this.lane.attach(runner.link, release, concurrency, callsMax)
    return runner
  }

  call(requestId: string, fields: Partial<Invocation> = {}, signal?: AbortSignal): Watched {
    const outcomes: (Result | Fault)[] = []
    const push = (outcome: Result | Fault): void => {
      outcomes.push(outcome)
    }
    this.router.start(invocation({ requestId, ...fields }), signal, push, push)
    return {
      outcomes,
      get outcome() {
        return name(outcomes)
      },
    }
  }

  /** Request ids of calls that are in the function now, in the order in which they were sent. */
  requests(): readonly string[] {
    for (const runner of this.runners) {
      for (const { type, id, payload } of runner.received()) {
        if (type === TYPE.request)
          this.seen.set(requestIdOf(payload), { runner, id, cancelled: false })
        if (type !== TYPE.cancel) continue
        for (const entry of this.seen.values()) {
          if (entry.runner === runner && entry.id === id) entry.cancelled = true
        }
      }
    }
    return [...this.seen.keys()]
  }

  answer(requestId: string, body = '', status = 200): void {
    const { runner, id } = this.#take(requestId)
    runner.answer(id, body, status)
  }

  fail(requestId: string, kind = 0, text?: string): void {
    const { runner, id } = this.#take(requestId)
    runner.fail(id, kind, text)
  }

  cancelled(requestId: string): boolean {
    this.requests()
    return this.seen.get(requestId)?.cancelled ?? false
  }

  /** Time passes, tick by tick. */
  pass(ms: number): void {
    const end = this.#nowMs + ms
    while (this.#nowMs < end) {
      this.#nowMs = Math.min(end, this.#nowMs + 10)
      this.wheel.advance()
    }
  }

  #take(requestId: string): { readonly runner: MemoryRunner; readonly id: number } {
    this.requests()
    const found = this.seen.get(requestId)
    if (found === undefined) throw new Error(`${requestId} is not in the function`)
    this.seen.delete(requestId)
    return found
  }
}

function name(outcomes: readonly (Result | Fault)[]): string {
  const [first] = outcomes
  if (first === undefined) return 'open'
  return first instanceof Fault ? first.code : `ok ${first.status}`
}

function requestIdOf(payload: Buffer): string {
  const lines = payload
    .subarray(6, 6 + payload.readUInt16BE(4))
    .toString()
    .split('\n')
  return lines[lines.indexOf('shoal-request-id') + 1] ?? ''
}
