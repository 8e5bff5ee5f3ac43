import type { Call } from './call.ts'
import { Connection, type ConnectionOwner } from './connection.ts'
import { currentCall } from './current-call.ts'
import { asText } from './guards.ts'
import { loadFunction, type LoadedFunction } from './load.ts'
import type { Logs } from './logs.ts'
import { cut, describe, KIND, LEVEL, LIMIT, ProtocolError, TYPE } from './protocol.ts'

/** Tries to connect come in this share of the time that the agent has been away: one that was restarted serves again at once. */
const RECONNECT_SHARE = 0.02
const RECONNECT_MS_MIN = 20
/** A try that finds no socket costs 0.1 ms. */
const RECONNECT_MS_MAX = 200
/** EX_UNAVAILABLE and EX_SOFTWARE of sysexits.h. */
const EXIT_REFUSED = 69
const EXIT_CRASHED = 70
/** How long an ending process waits for its last frames to be taken. */
const FLUSH_MS = 1_000

export interface RunnerOptions {
  readonly socketPath: string
  readonly handler: string
  readonly version: string
  readonly logs: Logs
  /** The real one: what is written here is no log line of the function. */
  readonly complain: (text: string) => void
  readonly exit: (code: number) => never
}

type State = 'empty' | 'loading' | 'ready' | 'failed'

/** The runner: keeps the function across connections, and a connection as long as there is an agent. */
export class Runner implements ConnectionOwner {
  readonly logs: Logs
  accept: ((call: Call) => void) | undefined
  concurrency = 1
  draining = false
  readonly #options: RunnerOptions
  #state: State = 'empty'
  #error = ''
  #fn = ''
  #release = ''
  #initialised = false
  #connection: Connection | undefined
  #greeted = false
  #awaySinceMs = performance.now()
  #ending = false

  constructor(options: RunnerOptions) {
    this.#options = options
    this.logs = options.logs
  }

  connect(): void {
    this.#connection = new Connection(this.#options.socketPath, this)
  }

  hello(): Readonly<Record<string, unknown>> {
    return {
      protocol: { min: 1, max: 1 },
      handler: this.#options.handler,
      runtime: 'nodejs',
      runner: this.#options.version,
      pid: process.pid,
      state: this.#state,
      ...(this.#initialised ? { fn: this.#fn, release: this.#release } : {}),
    }
  }

  welcomed(): void {
    this.#greeted = true
    this.#sayReady()
  }

  init(message: Readonly<Record<string, unknown>>): void {
    if (this.#initialised) throw new ProtocolError('FORBIDDEN', 'a second INIT')
    this.#initialised = true
    this.#state = 'loading'
    const { fn, release, dir, entry, env, concurrency } = message
    this.#fn = asText(fn)
    this.#release = asText(release)
    if (typeof concurrency === 'number' && concurrency >= 1) this.concurrency = concurrency
    if (typeof env === 'object' && env !== null) {
      for (const [name, value] of Object.entries(env)) process.env[name] = String(value)
    }
    const options = {
      dir: typeof dir === 'string' ? dir : '/shoal/fn',
      entry: typeof entry === 'string' ? entry : undefined,
      fn: this.#fn,
      release: this.#release,
    }
    loadFunction(options).then(
      (loaded) => this.#loaded(loaded),
      (error: unknown) => this.#failed(error),
    )
  }

  /** Finishes the calls in flight, then exits 0. */
  shutdown(): void {
    this.draining = true
    if ((this.#connection?.inFlight ?? 0) === 0) this.idle()
  }

  idle(): void {
    void this.#exit(0)
  }

  closed(error: Error | undefined): void {
    this.#connection = undefined
    if (this.#greeted && error !== undefined && !this.#ending) {
      this.#options.complain(`shoal runner: connection closed: ${error.message}`)
    }
    const nowMs = performance.now()
    if (this.#greeted) this.#awaySinceMs = nowMs
    this.#greeted = false
    if (this.#ending) return
    if (this.draining) this.#options.exit(0)
    const waitMs = (nowMs - this.#awaySinceMs) * RECONNECT_SHARE
    setTimeout(() => this.connect(), Math.min(Math.max(waitMs, RECONNECT_MS_MIN), RECONNECT_MS_MAX))
  }

  refused(message: string): void {
    this.#options.complain(`shoal runner: the agent refuses this runner: ${message}`)
    this.#options.exit(EXIT_REFUSED)
  }

  /** An error that no call caught: the call it belongs to fails; when that is not known, all do and the process ends. */
  crashed(error: unknown): void {
    const own = currentCall.getStore()
    const text = describe(error)
    if (own !== undefined) {
      if (own.call === undefined) this.logs.lines(0, LEVEL.ERROR, text)
      else own.call.fail(KIND.FUNCTION, text)
      return
    }
    this.logs.lines(0, LEVEL.ERROR, text)
    if (this.#state === 'loading') {
      this.#failed(error)
      return
    }
    for (const each of this.#connection?.calls() ?? []) {
      each.fail(KIND.FUNCTION, `the function's process crashed: ${text}`)
    }
    void this.#exit(EXIT_CRASHED)
  }

  /** A promise that nobody handled: harmless for other calls, so the process goes on. */
  rejected(error: unknown): void {
    const call = currentCall.getStore()?.call
    if (call !== undefined) call.fail(KIND.FUNCTION, describe(error))
    else this.logs.lines(0, LEVEL.ERROR, `unhandled rejection: ${describe(error)}`)
  }

  /** The last chance to hand on what is written: the process ends now. */
  flush(): void {
    this.logs.flushOwnPartialLines()
    for (const call of this.#connection?.calls() ?? []) this.logs.flushPartialLines(call)
    this.#connection?.writer.flush()
  }

  #loaded(loaded: LoadedFunction): void {
    if (this.#state !== 'loading') return
    this.#state = 'ready'
    this.accept = loaded.call
    this.#sayReady()
  }

  #failed(error: unknown): void {
    if (this.#state !== 'loading') return
    this.#state = 'failed'
    this.#error = cut(describe(error), LIMIT.textBytes)
    this.#sayReady()
  }

  #sayReady(): void {
    if (!this.#greeted) return
    this.logs.flushOwnPartialLines()
    if (this.#state === 'ready') this.#connection?.send(TYPE.READY, { ok: true })
    if (this.#state === 'failed') {
      this.#connection?.send(TYPE.READY, { ok: false, error: this.#error })
    }
  }

  async #exit(code: number): Promise<void> {
    if (this.#ending) return
    this.#ending = true
    this.flush()
    const timer = setTimeout(() => this.#options.exit(code), FLUSH_MS)
    await this.#connection?.end()
    clearTimeout(timer)
    this.#options.exit(code)
  }
}
