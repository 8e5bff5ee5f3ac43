import type { CallerListener, CallerSignal } from '#agent/invoke/index.ts'

/** Tells a call that its caller has gone; what an `AbortController` does, at a twentieth of the cost. */
export class Caller implements CallerSignal {
  aborted = false
  reason: unknown
  #listener: CallerListener | undefined

  /** No effect from the second time on. */
  leave(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    this.#listener?.handleEvent()
  }

  addEventListener(_: 'abort', listener: CallerListener): void {
    if (this.#listener !== undefined) throw new RangeError('a caller has one listener: its call')
    this.#listener = listener
  }

  removeEventListener(_: 'abort', listener: CallerListener): void {
    if (this.#listener === listener) this.#listener = undefined
  }
}
