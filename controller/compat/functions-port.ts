import type { Fault } from '#shared/fault.ts'
import type { NodeLogLine } from '#shared/schemas/api.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import type { Runtime } from '#shared/schemas/names.ts'

export type CompatSource =
  | { readonly kind: 'zip'; readonly content: Uint8Array }
  | { readonly kind: 'url'; readonly url: string; readonly subfolder: string }

export interface CompatDeployment {
  readonly name: string
  readonly runtime: Runtime
  readonly source: CompatSource
  readonly settings: Partial<FunctionSettings>
}

/** Where devices call the nodes; 0 or less = off. */
export interface InvokePorts {
  readonly http: number
  readonly coap: number
  readonly grpc: number
}

/** What an adapter needs of the controller, and nothing else. "Its own" are the functions deployed through it. */
export interface FunctionsPort {
  /**
   * Builds, rolls out to all nodes and returns when the function answers: on all nodes that are online, and on one at least.
   *
   * @throws Fault with what went wrong
   */
  deploy(deployment: CompatDeployment, signal: AbortSignal): Promise<InvokePorts>
  /** Names of its own functions, sorted. */
  list(signal: AbortSignal): Promise<string[]>
  /** @throws Fault `FUNCTION_UNKNOWN`, also for a function that is not its own */
  remove(name: string, signal: AbortSignal): Promise<void>
  /** Lines that are kept, oldest first. @throws Fault `FUNCTION_UNKNOWN`, also for a function that is not its own */
  logs(name: string, signal: AbortSignal): Promise<NodeLogLine[]>
  /** Removes all of its own functions; returns what could not be removed. */
  wipe(signal: AbortSignal): Promise<readonly Fault[]>
}
