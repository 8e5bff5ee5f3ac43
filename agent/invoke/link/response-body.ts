import { Readable } from 'node:stream'
import { ChunkQueue } from './chunk-queue.ts'
import type { Slot } from './slot.ts'

/** What the body's stream asks of the table that feeds it. */
export interface BodyFeed {
  /** The consumer has taken this many bytes so far. */
  consumed(slot: Slot, bytes: number): void
  /** The consumer does not want the rest. */
  dropped(slot: Slot): void
}

/**
 * The body of an answer as the caller reads it; holds at most one window, in a queue of its own: how many chunks that is
 * must not be up to the function.
 *
 * Its high-water mark is 0: the stream's buffer gets one chunk whenever the consumer has emptied it, and each time the feed
 * is told. So a runner that has used up its window is granted more as soon as the consumer has read half of it.
 */
export class ResponseBody extends Readable {
  #feed: BodyFeed
  /** Undefined as soon as the runner's side has ended: the slot may then belong to another call. */
  #slot: Slot | undefined
  #receivedBytes = 0
  readonly #queue = new ChunkQueue()
  /** The consumer has asked for more than there was. */
  #asked = false
  #ended = false

  constructor(feed: BodyFeed, slot: Slot) {
    super({ highWaterMark: 0, autoDestroy: true })
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
    if (!this.#asked) return this.#queue.push(chunk)
    this.#asked = false
    this.push(chunk)
  }

  finish(): void {
    this.#slot = undefined
    this.#ended = true
    if (this.#queue.bytes === 0) this.push(null)
  }

  break(error: Error): void {
    this.#slot = undefined
    this.destroy(error)
  }

  override _read(): void {
    const chunk = this.#queue.shift()
    if (chunk === undefined) this.#asked = true
    else this.push(chunk)
    if (this.#ended && this.#queue.bytes === 0) this.push(null)
    // `read()` calls this before it takes its bytes out of the buffer; they count as consumed after it has returned.
    else process.nextTick(grant, this)
  }

  /** Tells the feed how much has been consumed by now. */
  grant(): void {
    if (this.#slot === undefined) return
    this.#feed.consumed(this.#slot, this.#receivedBytes - this.#queue.bytes - this.readableLength)
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
