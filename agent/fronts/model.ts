import type { Logger } from 'pino'
import type { Invoker } from '#agent/invoke/index.ts'
import type { FaultCode, FaultDetails } from '#shared/fault.ts'

export interface FrontPorts {
  readonly http: number
  readonly coap: number
  readonly grpc: number
}

/** Where the fronts listen and what they let in. */
export interface FrontSettings {
  readonly host: string
  /** 0: any free one; -1: none. */
  readonly ports: FrontPorts
  readonly bodyBytesMax: number
}

export interface FrontsOptions extends FrontSettings {
  readonly invoker: Invoker
  readonly log: Logger
}

/** Open doors. */
export interface Fronts {
  /** 0 for those that are off. */
  readonly ports: FrontPorts
  /** Why nobody can come in at the moment. */
  readonly blocked: string | undefined
  /** Of processes of their own. */
  readonly pids: readonly number[]
  /** Refuses new calls with `SHUTTING_DOWN`, lets those in flight finish for up to `drainMs`, then cancels them. Idempotent. */
  close(drainMs?: number): Promise<void>
}

/** What the agent tells a worker. */
export type ToWorker =
  | {
      readonly kind: 'open'
      readonly settings: FrontSettings
      /** How many workers share the limits. */
      readonly workers: number
      readonly logLevel: string
    }
  | { readonly kind: 'close'; readonly drainMs: number }

/** What a worker tells the agent. */
export type FromWorker =
  | { readonly kind: 'opened' }
  | {
      readonly kind: 'failed'
      readonly code: FaultCode
      readonly message: string
      readonly details: FaultDetails
    }
