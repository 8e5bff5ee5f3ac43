import type { Socket } from 'node:net'
import { READ_BUFFER } from './read-buffer.ts'

/** Whether a connection is read from: not while the reader of a body wants no more, nor while a request waits behind another. */
export class Intake {
  readonly #socket: Socket
  /** Bytes of requests whose turn has not come. */
  #waiting: Buffer | undefined
  #held = false

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /** By the reader of a body. */
  get held(): boolean {
    return this.#held
  }

  /** Nothing is read, so neither is the peer's end. */
  get stopped(): boolean {
    return this.#held || this.#waiting !== undefined
  }

  hold(held: boolean): void {
    this.#held = held
    this.#apply()
  }

  /** Keeps what was read too early, and reads no more until its turn has come. */
  wait(bytes: Buffer): void {
    this.#waiting = bytes.buffer === READ_BUFFER.buffer ? Buffer.from(bytes) : bytes
    this.#apply()
  }

  /** What has waited. Reads on when told so by `goOn`: it is to be consumed before. */
  takeWaiting(): Buffer | undefined {
    const waiting = this.#waiting
    this.#waiting = undefined
    return waiting
  }

  goOn(): void {
    this.#apply()
  }

  #apply(): void {
    if (this.stopped === this.#socket.isPaused()) return
    if (this.stopped) this.#socket.pause()
    else this.#socket.resume()
  }
}
