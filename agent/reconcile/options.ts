import type { BundleStore, Engine, HandlerTimeouts, HandlerTimings } from '#agent/handlers/index.ts'
import type { InvokeRouter } from '#agent/invoke/index.ts'
import type { Clock } from '#shared/clock.ts'
import type { LogLine } from '#shared/schemas/health.ts'
import type { ReconcileLog } from './apply.ts'

export interface ReconcilerOptions {
  readonly engine: Engine
  readonly router: InvokeRouter
  readonly bundles: BundleStore
  /** For handlers' folders; short, because Unix sockets lie below it. */
  readonly folder: string
  readonly clock: Clock
  readonly log: ReconcileLog
  /** Every line of every function. Must not throw. */
  readonly onLog: (line: LogLine) => void
  /** A handler serves for the first time; what its start took. Must not throw. */
  readonly onStarted?: (fn: string, timings: HandlerTimings) => void
  /** Default: that of shared/limits.ts. */
  readonly bodyBytesMax?: number
  /** For calls in flight when the reconciler closes, or on a handler that answers nobody; default 5,000. */
  readonly drainMs?: number
  /** For a handler of the release before the wanted one, paused; default 600,000, 0: none is kept. */
  readonly keepMs?: number
  /** For all handlers together, by their memory limits; default: no bound. */
  readonly memoryBudgetMiB?: number
  /** Handlers of each kind started ahead, without a function; default 0. */
  readonly spares?: number
  /** Handlers started at once; default 4. */
  readonly startsMax?: number
  /** Between two surveys of what the engine and the disk really have; default 30,000. */
  readonly surveyMs?: number
  readonly timeouts?: Partial<HandlerTimeouts>
  /** 0 to 1; default Math.random. */
  readonly random?: () => number
}

export interface CloseOptions {
  /** True: ends and removes all handlers. False: they go on, for the next agent to adopt. */
  readonly removeHandlers: boolean
}
