import type { Readable } from 'node:stream'
import { Fault } from '#shared/fault.ts'
import { END, FRAME_LIMITS } from '../frames/index.ts'
import type { FrameWriter } from '../frames/index.ts'

/** Sends the rest of a request's body as the runner grants it. */
export interface BodySender {
  /** The runner has consumed this many bytes more. */
  grant(bytes: number): void
  /** Sends nothing more; does not end the runner's side. */
  stop(): void
}

export interface SenderHooks {
  /** END has been sent. */
  sent(): void
  /** The source broke, or has too many bytes: nothing was ended. */
  broke(fault: Fault): void
}

/** A body that is whole, from where REQUEST left off. */
export class BufferSender implements BodySender {
  readonly #writer: FrameWriter
  readonly #id: number
  readonly #body: Buffer
  readonly #hooks: SenderHooks
  readonly #windowBytes: number
  #at: number
  #creditBytes = 0

  constructor(
    writer: FrameWriter,
    id: number,
    body: Buffer,
    from: number,
    windowBytes: number,
    hooks: SenderHooks,
  ) {
    this.#writer = writer
    this.#id = id
    this.#body = body
    this.#at = from
    this.#windowBytes = windowBytes
    this.#hooks = hooks
  }

  grant(bytes: number): void {
    this.#creditBytes = Math.min(this.#windowBytes, this.#creditBytes + bytes)
    const end = Math.min(this.#body.length, this.#at + this.#creditBytes)
    if (end === this.#at) return
    const last = end === this.#body.length
    this.#writer.data(this.#id, last ? END : 0, this.#body, this.#at, end)
    this.#creditBytes -= end - this.#at
    this.#at = end
    if (last) this.#hooks.sent()
  }

  stop(): void {
    this.#at = this.#body.length
  }
}

/**
 * A body that is a stream; paused while the runner has no room.
 *
 * A source that is not read to its end (the function answered early, the call was cancelled) is left paused to its owner.
 */
export class StreamSender implements BodySender {
  readonly #writer: FrameWriter
  readonly #id: number
  readonly #source: Readable
  readonly #hooks: SenderHooks
  readonly #windowBytes: number
  readonly #bytesMax: number
  #creditBytes: number
  #sentBytes = 0
  /** The last chunk, when it had no room for all of it: what is behind `#heldAt` waits. Whole, so that the writer knows its memory. */
  #held: Buffer | undefined
  #heldAt = 0
  /** A stream may say `end` although it was paused in its last chunk. */
  #sourceEnded = false

  constructor(
    writer: FrameWriter,
    id: number,
    source: Readable,
    windowBytes: number,
    bytesMax: number,
    hooks: SenderHooks,
  ) {
    this.#writer = writer
    this.#id = id
    this.#source = source
    this.#windowBytes = windowBytes
    this.#bytesMax = bytesMax
    this.#creditBytes = windowBytes
    this.#hooks = hooks
  }

  /** Begins to read; hooks are not called before this returns, except for a source that has ended already. */
  start(): void {
    const source = this.#source
    source.on('error', this.#failed)
    if (source.readableEnded) return this.#ended()
    if (source.destroyed) return this.#failed(source.errored)
    source.on('data', this.#chunk)
    source.on('end', this.#ended)
    source.on('close', this.#closed)
  }

  grant(bytes: number): void {
    this.#creditBytes = Math.min(this.#windowBytes, this.#creditBytes + bytes)
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    this.#send(held, this.#heldAt)
    if (this.#held !== undefined) return
    if (this.#sourceEnded) this.#finish()
    else this.#source.resume()
  }

  stop(): void {
    const source = this.#source
    this.#held = undefined
    source.off('data', this.#chunk)
    source.off('end', this.#ended)
    source.off('close', this.#closed)
    source.pause()
    // The last listener for errors stays: the source may break later, and nobody else may be listening.
    source.on('error', ignore)
    source.off('error', this.#failed)
  }

  readonly #chunk = (chunk: Buffer | string): void => {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    this.#sentBytes += bytes.length
    if (this.#sentBytes > this.#bytesMax) {
      const fault = new Fault('BODY_TOO_LARGE', `The body has more than ${this.#bytesMax} bytes`, {
        bodyBytesMax: this.#bytesMax,
      })
      this.stop()
      this.#hooks.broke(fault)
      return
    }
    // Its owner made the source go on although it is paused.
    if (this.#held === undefined) this.#send(bytes, 0)
    else this.#hold(Buffer.concat([this.#held.subarray(this.#heldAt), bytes]), 0)
    if (this.#held !== undefined) this.#source.pause()
  }

  #send(bytes: Buffer, from: number): void {
    let at = from
    while (at < bytes.length && this.#creditBytes > 0) {
      const room = Math.min(this.#creditBytes, FRAME_LIMITS.bodyFrameBytesMax)
      const end = Math.min(bytes.length, at + room)
      // Chunks of a stream have one reader: this one.
      this.#writer.data(this.#id, 0, bytes, at, end, end === bytes.length)
      this.#creditBytes -= end - at
      at = end
    }
    if (at < bytes.length) this.#hold(bytes, at)
  }

  #hold(bytes: Buffer, at: number): void {
    this.#held = bytes
    this.#heldAt = at
  }

  readonly #ended = (): void => {
    this.#sourceEnded = true
    if (this.#held === undefined) this.#finish()
  }

  #finish(): void {
    this.stop()
    this.#writer.end(this.#id)
    this.#hooks.sent()
  }

  readonly #closed = (): void => {
    if (!this.#sourceEnded) this.#failed(this.#source.errored)
  }

  readonly #failed = (error: Error | null): void => {
    this.stop()
    this.#hooks.broke(
      error instanceof Fault
        ? error
        : new Fault('CALLER_GONE', 'The body of the request broke off', {}, { cause: error }),
    )
  }
}

function ignore(): void {}
