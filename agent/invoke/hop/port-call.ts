import type { Readable } from 'node:stream'
import type { BlockLease } from '#agent/sockets/index.ts'
import { Slot } from '../link/index.ts'
import type { CallerListener, CallerSignal } from '../model.ts'

/** One call that a worker has sent, by its id, until both sides have ended. Is its caller's signal, too. */
export class PortCall extends Slot implements CallerSignal {
  aborted = false
  reason: unknown
  /** END or CANCEL has come: nothing more will. */
  receivedEnd = false
  /** A body that is gathered before the call begins. */
  whole: Buffer | undefined
  /** The answer that is being sent. */
  answer: Readable | undefined
  /** Of the memory of a body that came in one frame. */
  lease: BlockLease | undefined
  /** Begins the call, once its body is whole. */
  begin: (() => void) | undefined
  #listener: CallerListener | undefined

  /** No effect from the second time on. */
  leave(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    this.#listener?.handleEvent()
  }

  addEventListener(_: 'abort', listener: CallerListener): void {
    this.#listener = listener
  }

  removeEventListener(): void {
    this.#listener = undefined
  }
}
