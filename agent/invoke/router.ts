import { availableParallelism } from 'node:os'
import type { Fault } from '#shared/fault.ts'
import { Background } from './background.ts'
import type { InvokeLog } from './background.ts'
import { BusyPoll, Lane, Shares, TimerWheel, leanFault } from './lane/index.ts'
import type { LaneCallbacks, LaneHost, LaneSettings } from './lane/index.ts'
import { matchName } from './match-name.ts'
import type { CallerSignal, Invocation, Invoker, Result } from './model.ts'

export interface InvokeRouterOptions {
  readonly log: InvokeLog
  /** Calls in the background at once, default 1,000. */
  readonly asyncMax?: number
  /** Bodies kept for calls in the background, default 64 MiB. */
  readonly asyncBytesMax?: number
  /** Calls in work on the node before functions take turns, default 1,024. */
  readonly callsMax?: number
  /** For how long a quick answer, or the next call of a quick caller, is awaited awake, in microseconds; default: not at all. */
  readonly busyPollMicros?: number
  /** Time of all lanes; a test passes one that it advances itself. */
  readonly wheel?: TimerWheel
}

/** The node's `Invoker`: lanes by function name. */
export class InvokeRouter implements Invoker, AsyncDisposable {
  /** Called when a name has come or gone. */
  onNames: (() => void) | undefined
  readonly #lanes = new Map<string, Lane>()
  readonly #background: Background
  readonly #wheel: TimerWheel
  readonly #shares: Shares
  readonly #host: LaneHost
  /** Lanes whose last calls may still be in flight. */
  #removed: Lane[] = []
  #names: readonly string[] = []
  /** Calls whose callers wait. */
  #open = 0
  #closing: Promise<void> | undefined
  #idle: (() => void) | undefined

  constructor(options: InvokeRouterOptions) {
    this.#wheel = options.wheel ?? new TimerWheel()
    this.#background = new Background({
      log: options.log,
      callsMax: options.asyncMax ?? 1_000,
      bytesMax: options.asyncBytesMax ?? 64 * 1024 * 1024,
    })
    this.#shares = new Shares(options.callsMax ?? 1_024)
    const pollMs = (options.busyPollMicros ?? 0) / 1_000
    this.#host = {
      wheel: this.#wheel,
      shares: this.#shares,
      // With one core the function could not even begin.
      poll: new BusyPoll(
        () => this.#shares.inWork,
        availableParallelism() > 1 ? pollMs : 0,
        this.#wheel.nowMs,
      ),
      open: (by) => {
        this.#open += by
        if (this.#open === 0) this.#idle?.()
      },
    }
  }

  match(path: string): { readonly fn: string; readonly rest: string } | undefined {
    return matchName(path, this.#lanes)
  }

  names(): readonly string[] {
    return this.#names
  }

  invoke(invocation: Invocation, signal?: AbortSignal): Promise<Result> {
    return new Promise((resolve, reject) => this.start(invocation, signal, resolve, reject))
  }

  start(
    invocation: Invocation,
    signal: CallerSignal | undefined,
    resolve: (result: Result) => void,
    reject: (fault: Fault) => void,
  ): void {
    const lane = this.#lanes.get(invocation.fn)
    if (this.#closing !== undefined) return reject(shuttingDown())
    if (lane === undefined) return reject(unknown(invocation.fn))
    lane.start(invocation, signal, resolve, reject)
  }

  async accept(invocation: Invocation): Promise<void> {
    const lane = this.#lanes.get(invocation.fn)
    if (this.#closing !== undefined) throw shuttingDown()
    if (lane === undefined) throw unknown(invocation.fn)
    await this.#background.accept(lane, invocation)
  }

  /** The function's lane: made, or given these settings (and callbacks, when given). */
  ensure(fn: string, settings: LaneSettings, callbacks?: LaneCallbacks): Lane {
    const known = this.#lanes.get(fn)
    if (known !== undefined) {
      known.configure(settings, callbacks)
      return known
    }
    const lane = new Lane(fn, settings, callbacks ?? {}, this.#host)
    this.#lanes.set(fn, lane)
    this.#list()
    return lane
  }

  lane(fn: string): Lane | undefined {
    return this.#lanes.get(fn)
  }

  /**
   * From now on the name is unknown here: calls that wait get `FUNCTION_UNKNOWN`, those in flight finish. Links stay as
   * they are: drain them through the lane that `ensure` gave.
   */
  remove(fn: string): void {
    const lane = this.#lanes.get(fn)
    if (lane === undefined) return
    lane.remove()
    this.#lanes.delete(fn)
    this.#removed = this.#removed.filter(({ busy }) => busy)
    this.#removed.push(lane)
    this.#list()
  }

  /** New calls get `SHUTTING_DOWN`; waits for the others, at most `drainMs`, then ends them with the same. Idempotent. */
  close(drainMs = 5_000): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(drainMs: number): Promise<void> {
    if (this.#open > 0) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#idle = resolve
      const timer = setTimeout(resolve, drainMs)
      await promise
      clearTimeout(timer)
    }
    for (const lane of [...this.#lanes.values(), ...this.#removed]) lane.endAll(shuttingDown())
    this.#wheel.stop()
  }

  #list(): void {
    this.#shares.divide(this.#lanes.size)
    this.#names = [...this.#lanes.keys()].toSorted()
    this.onNames?.()
  }
}

function unknown(fn: string): Fault {
  return leanFault('FUNCTION_UNKNOWN', `${fn} does not run on this node`, {})
}

function shuttingDown(): Fault {
  return leanFault('SHUTTING_DOWN', 'This node is shutting down', {})
}
