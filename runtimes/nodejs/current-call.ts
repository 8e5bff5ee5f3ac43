import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import type { Call } from './call.ts'
import { describe, KIND, ProtocolError } from './protocol.ts'

/**
 * What stands for a call in its async context. A socket or a timer keeps the context that it was made in for as long as it lives, and a pool
 * of connections must not keep the bodies of the calls that opened them.
 */
export interface CallRef {
  /** Undefined once the call has ended. */
  call: Call | undefined
}

/** The call that the running code belongs to. */
export const currentCall = new AsyncLocalStorage<CallRef>()

/** The async context that the runner itself was started in; what runs in it leaves nothing behind (Node 24 or newer). */
const outside = new AsyncResource('SHOAL_RUNNER')

/**
 * Runs `action` as `call`: what it throws, now or later, is the call's error.
 *
 * Every call starts in the runner's own context. `AsyncLocalStorage.run` alone would take back no more than the value of `currentCall`: what a
 * function puts into a storage of its own by `enterWith` would meet the next call that has come in the same read.
 */
export function runAs(call: Call, action: (call: Call) => void): void {
  outside.runInAsyncScope(enter, undefined, call, action)
}

function enter(call: Call, action: (call: Call) => void): void {
  currentCall.enterWith(call.ref)
  try {
    action(call)
  } catch (error) {
    if (error instanceof ProtocolError) throw error
    call.fail(KIND.FUNCTION, describe(error))
  }
}
