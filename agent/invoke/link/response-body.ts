import { Readable } from 'node:stream'
import type { Slot } from './slot.ts'

/** What the body's stream asks of the table that feeds it. */
export interface BodyFeed {
  /** The consumer has taken this many bytes so far. */
  consumed(slot: Slot, bytes: number): void
  /** The consumer does not want the rest. */
  dropped(slot: Slot): void
}

/**
 * The body of an answer as the caller reads it; holds at most one window.
 *
 * Its high-water mark is half the window: a runner that has used up its window has filled the buffer beyond that mark,
 * so the consumer's next read below the mark calls `_read`, and after that read at least half the window is consumed and
 * not yet granted.
 */
export class ResponseBody extends Readable {
  #feed: BodyFeed
  /** Undefined as soon as the runner's side has ended: the slot may then belong to another call. */
  #slot: Slot | undefined
  #receivedBytes = 0

  constructor(feed: BodyFeed, slot: Slot, windowBytes: number) {
    super({ highWaterMark: windowBytes >>> 1, autoDestroy: true })
    this.#feed = feed
    this.#slot = slot
    // A body may break before its consumer has had a chance to listen; that must not end the process. Consumers that
    // come later see `errored`, as `pipeline` and `for await` do.
    this.on('error', ignore)
  }

  /** The chunk must be the stream's own. */
  accept(chunk: Buffer): void {
    if (this.destroyed) return
    this.#receivedBytes += chunk.length
    this.push(chunk)
  }

  finish(): void {
    this.#slot = undefined
    this.push(null)
  }

  break(error: Error): void {
    this.#slot = undefined
    this.destroy(error)
  }

  override _read(): void {
    // `read()` calls this before it takes its bytes out of the buffer; they count as consumed after it has returned.
    process.nextTick(grant, this)
  }

  /** Tells the feed how much has been consumed by now. */
  grant(): void {
    if (this.#slot === undefined) return
    this.#feed.consumed(this.#slot, this.#receivedBytes - this.readableLength)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const slot = this.#slot
    this.#slot = undefined
    if (slot !== undefined) this.#feed.dropped(slot)
    done(error)
  }
}

function ignore(): void {}

function grant(body: ResponseBody): void {
  body.grant()
}
