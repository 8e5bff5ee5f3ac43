import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { Fault } from '#shared/fault.ts'

/** The fault for a request body above the limit. */
export function bodyTooLarge(bytesMax: number): Fault {
  return new Fault('BODY_TOO_LARGE', `the body is larger than ${bytesMax} bytes`, { bytesMax })
}

/**
 * A request's body as a stream that fails with `BODY_TOO_LARGE` above `bytesMax`, at the reader's pace.
 *
 * Destroying it leaves the connection alone, so that the answer can still be sent; a connection that ends too early fails it.
 */
export class LimitedBody extends Readable {
  readonly #request: IncomingMessage
  readonly #bytesMax: number
  #bytes = 0

  constructor(request: IncomingMessage, bytesMax: number) {
    super()
    this.#request = request
    this.#bytesMax = bytesMax
    request.pause()
    request.on('data', this.#onData)
    request.once('end', this.#onEnd)
    request.once('close', this.#onClose)
    request.once('error', this.#onClose)
  }

  override _read(): void {
    this.#request.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#request.off('data', this.#onData)
    this.#request.off('end', this.#onEnd)
    this.#request.off('close', this.#onClose)
    this.#request.pause()
    done(error)
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#bytes += chunk.length
    if (this.#bytes > this.#bytesMax) this.destroy(bodyTooLarge(this.#bytesMax))
    else if (!this.push(chunk)) this.#request.pause()
  }

  readonly #onEnd = (): void => {
    this.push(null)
  }

  readonly #onClose = (): void => {
    if (this.#request.complete || this.destroyed) return
    this.destroy(new Fault('CALLER_GONE', 'the connection ended inside the request body'))
  }
}

/**
 * The whole body of a request, known to be at most `bytesMax` when `bytes` is given.
 *
 * @param bytes - From `Content-Length`; -1 when the body says itself where it ends.
 * @param done - Called once; never when the connection ends first.
 */
export function collectRequest(
  request: IncomingMessage,
  bytes: number,
  bytesMax: number,
  done: (body: Buffer | Fault) => void,
): void {
  let first: Buffer | undefined
  let more: Buffer[] | undefined
  let received = 0
  const end = (body: Buffer | Fault): void => {
    request.off('data', onData)
    request.off('end', onEnd)
    done(body)
  }
  const onEnd = (): void => {
    end(more === undefined ? (first ?? Buffer.alloc(0)) : Buffer.concat(more, received))
  }
  const onData = (chunk: Buffer): void => {
    received += chunk.length
    if (received > bytesMax) return end(bodyTooLarge(bytesMax))
    if (first === undefined) first = chunk
    else if (more === undefined) more = [first, chunk]
    else more.push(chunk)
    if (received === bytes) onEnd()
  }
  request.on('data', onData)
  if (bytes < 0) request.once('end', onEnd)
}

/**
 * Reads away what is left of a body that nobody wants. Closing at once would make the kernel reset the connection, and
 * the caller could lose the answer that explains why; reading for ever would be a gift, so above `bytesMax` the connection ends.
 */
export function drainRequest(request: IncomingMessage, bytesMax: number): void {
  if (request.readableEnded || request.destroyed) return
  let bytes = 0
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > bytesMax) request.socket.destroy()
  })
  request.resume()
}
