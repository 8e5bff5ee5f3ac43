import type { Output } from '../output.ts'
import type { Part } from './part.ts'

/** Stops what was added, in the reverse order, each within its time; one failure does not keep the rest running. */
export class Stopper implements AsyncDisposable {
  readonly #out: Output
  readonly #stops: { readonly name: string; readonly stop: () => Promise<void> }[] = []

  constructor(out: Output) {
    this.#out = out
  }

  add(name: string, stop: () => Promise<void>): void {
    this.#stops.unshift({ name, stop })
  }

  /** A part, which may still be starting, gets SIGTERM, and after `graceMs` SIGKILL. */
  addPart(name: string, starting: Promise<Part>, graceMs: number): void {
    this.add(name, async () => {
      // One that did not start has cleaned up after itself, and whoever waits for it has been told.
      const part = await starting.catch(() => undefined)
      const clean = await part?.stop(graceMs)
      if (clean === false)
        this.#out.line(`${name} did not stop within ${graceMs} ms and was killed`)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { name, stop } of this.#stops.splice(0)) {
      try {
        await stop()
      } catch (error) {
        this.#out.line(`${name}: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
  }
}
