import type { HeaderList } from '#agent/invoke/index.ts'
import type { BodyBudget } from '#agent/sockets/index.ts'
import type { CallStream, CallStreamListener, Written } from '../call-stream.ts'
import { CODE, type Code, FLAG, FRAME, WINDOW_BYTES_MAX } from './format.ts'
import type { FrameWriter } from './frame-writer.ts'
import { encodeHeader } from './header-block.ts'

/** What a stream needs of its connection. */
export interface StreamHost {
  /** For what a paused stream holds, and for answers that wait for the peer. */
  readonly budget: BodyBudget
  readonly writer: FrameWriter
  /** What the peer takes now, of all streams together. */
  sendWindowBytes: number
  /** Of one frame. */
  readonly peerFrameBytesMax: number
  /** The stream is to go on when the connection can. */
  wait(stream: H2Stream): void
  /** Both sides have ended: the peer's only by our word, when it has not ended it itself. */
  ended(stream: H2Stream, remoteEnded: boolean): void
  /** An answer has got further. */
  moved(): void
  /** A stream was reset by the peer's fault. @throws ConnectionError when it is one too many */
  broken(): void
  /** A header block as it must go out now. */
  block(encoded: Buffer): Buffer
}

/** Requests may be this far ahead of what has been taken of them. */
export const STREAM_WINDOW_BYTES = 256 * 1024
/** An answer of which more than this waits is to be continued later. */
const WAITING_BYTES_MAX = 64 * 1024

/** A paused stream keeps so many pieces, however small. */
const HELD_PIECES_MAX = 1_024
/** What a piece that waits takes beside its bytes. */
const PIECE_BYTES = 128

/** Messages up to this ... */
const SMALL_BYTES = 16 * 1024
/** ... may take this part of the budget more than there is: their calls should not fail for what others hold. */
const SMALL_OVER_SHARE = 1 / 8
/** An answer that had room while it was gathered has it with its head and prefix as well. */
const OVER_BYTES = 16 * 1024

const HEADER = encodeHeader([':status', '200', 'content-type', 'application/grpc'])
const OK = encodeHeader(['grpc-status', '0'])

/** One stream: flow control both ways, and what waits for it. */
export class H2Stream implements CallStream {
  readonly id: number
  listener: CallStreamListener | undefined
  /** The request has ended. */
  remoteEnded = false
  /** The answer has ended. */
  localEnded = false
  /** When something of the answer was last sent, or began to wait, by `performance.now`; only right while it `waitsForPeer`. */
  movedAtMs = 0
  readonly #host: StreamHost
  #sendWindowBytes: number
  /** Received and not yet given back to the window. */
  #receivedBytes = 0
  #queue: Buffer[] = []
  /** Of the queue's first. */
  #sentBytes = 0
  /** Of the queue, not sent yet. */
  #waitingBytes = 0
  /** What the budget knows of the queue. */
  #countedBytes = 0
  #trailers: Buffer | undefined
  /** A `write` has said `full`. */
  #full = false
  #paused = false
  #held: Buffer[] = []
  #endTold = false
  readonly #contentLength: number
  #bodyBytes = 0

  /** @param contentLength - as the request's header has it; -1: not */
  constructor(host: StreamHost, id: number, sendWindowBytes: number, contentLength: number) {
    this.#host = host
    this.id = id
    this.#sendWindowBytes = sendWindowBytes
    this.#contentLength = contentLength
  }

  /** The answer is complete but for what the peer does not take. */
  get ending(): boolean {
    return this.#trailers !== undefined
  }

  /** There is something of the answer that the peer does not take. */
  get waitsForPeer(): boolean {
    return this.#queue.length > 0
  }

  open(): void {
    if (this.localEnded) return
    this.#host.writer.frame(FRAME.headers, FLAG.endHeaders, this.id, this.#host.block(HEADER))
  }

  write(frame: Buffer): Written {
    if (this.localEnded) return 'taken'
    const behind = this.waitsForPeer
    const waitsBytes = frame.length - (behind ? 0 : this.#roomBytes())
    if (waitsBytes > 0) {
      if (!this.#mayWait(waitsBytes)) return 'refused'
      if (!behind) this.movedAtMs = performance.now()
    }
    this.#push(frame)
    this.go()
    this.#full = this.#waitingBytes > WAITING_BYTES_MAX
    return this.#full ? 'full' : 'taken'
  }

  end(trailers: HeaderList): void {
    if (this.localEnded) return
    this.#trailers = encodeHeader(trailers)
    this.go()
  }

  answer(frame: Buffer): boolean {
    if (this.localEnded) return true
    const host = this.#host
    const roomBytes = Math.min(this.#sendWindowBytes, host.sendWindowBytes, host.peerFrameBytesMax)
    if (frame.length <= roomBytes && host.writer.hasRoom) {
      host.sendWindowBytes -= frame.length
      host.writer.answer(this.id, host.block(HEADER), frame, OK)
      this.#endLocal()
      return true
    }
    const waitsBytes = frame.length - this.#roomBytes()
    if (waitsBytes > 0 && !this.#mayWait(waitsBytes)) return false
    this.open()
    this.movedAtMs = performance.now()
    this.#push(frame)
    this.#trailers = OK
    this.go()
    return true
  }

  refuse(header: HeaderList): void {
    if (this.localEnded) return
    const block = this.#host.block(encodeHeader(header))
    this.#host.writer.frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, this.id, block)
    this.#endLocal()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    for (;;) {
      if (this.#paused) return
      const chunk = this.#held.shift()
      if (chunk === undefined) break
      this.#host.budget.give(chunk.length + PIECE_BYTES)
      this.#deliver(chunk)
    }
    this.#giveBack()
    if (this.remoteEnded) this.#tellEnd()
  }

  /** DATA has come. */
  receive(chunk: Buffer, paddedBytes: number, last: boolean): void {
    this.#receivedBytes += paddedBytes
    this.#bodyBytes += chunk.length
    if (this.#receivedBytes > STREAM_WINDOW_BYTES) return this.reset(CODE.flowControlError)
    if (last && !this.#isComplete()) return this.reset(CODE.protocolError)
    this.remoteEnded = last
    if (this.#paused) {
      if (chunk.length > 0) this.#hold(chunk)
      return
    }
    if (chunk.length > 0) this.#deliver(chunk)
    else this.#giveBack()
    if (last && !this.#paused) this.#tellEnd()
  }

  /** The request ends without DATA. */
  receiveEnd(): void {
    if (!this.#isComplete()) return this.reset(CODE.protocolError)
    this.remoteEnded = true
    if (!this.#paused) this.#tellEnd()
  }

  /** The peer takes so many bytes more, or (after its SETTINGS) fewer. @returns false when that is too many */
  addWindow(bytes: number): boolean {
    this.#sendWindowBytes += bytes
    if (this.#sendWindowBytes > WINDOW_BYTES_MAX) return false
    this.go()
    return true
  }

  /** Sends what waits as far as windows and socket allow. To be called by the connection; else nothing happens out of turn. */
  go(): void {
    this.#sendAll()
    this.#count()
  }

  /** Ends both sides at once; the peer is told, unless it said so itself. @throws ConnectionError when it has provoked too many */
  reset(code: Code | undefined): void {
    if (code !== undefined) this.#host.writer.number(FRAME.rstStream, this.id, code)
    const known = code === undefined || this.remoteEnded
    this.remoteEnded = true
    this.localEnded = true
    this.#clear()
    this.#host.ended(this, known)
    // Else a peer could have functions called for nothing without sending a single RST_STREAM.
    if (code !== undefined && code !== CODE.cancel) this.#host.broken()
  }

  #sendAll(): void {
    const host = this.#host
    for (;;) {
      const chunk = this.#queue[0]
      if (chunk === undefined) break
      if (host.sendWindowBytes <= 0 || !host.writer.hasRoom) {
        host.wait(this)
        return
      }
      const windowBytes = Math.min(this.#sendWindowBytes, host.sendWindowBytes)
      if (windowBytes <= 0) return
      this.#sendSome(chunk, Math.min(windowBytes, host.peerFrameBytesMax))
    }
    if (this.#trailers !== undefined) {
      const block = host.block(this.#trailers)
      host.writer.frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, this.id, block)
      this.#endLocal()
    }
  }

  #push(frame: Buffer): void {
    this.#queue.push(frame)
    this.#waitingBytes += frame.length + PIECE_BYTES
  }

  /** So much can leave now. */
  #roomBytes(): number {
    const { writer, sendWindowBytes } = this.#host
    return writer.hasRoom ? Math.max(0, Math.min(this.#sendWindowBytes, sendWindowBytes)) : 0
  }

  #mayWait(bytes: number): boolean {
    const { budget } = this.#host
    const overBytes = bytes <= SMALL_BYTES ? budget.bytesMax * SMALL_OVER_SHARE : OVER_BYTES
    return budget.bytes + bytes <= budget.bytesMax + overBytes
  }

  /** What waits counts, and each piece until its last byte is sent; what is sent at once never does. */
  #count(): void {
    const moreBytes = this.#waitingBytes + this.#sentBytes - this.#countedBytes
    if (moreBytes === 0) return
    if (moreBytes > 0) this.#host.budget.force(moreBytes)
    else this.#host.budget.give(-moreBytes)
    this.#countedBytes += moreBytes
  }

  #sendSome(chunk: Buffer, bytesMax: number): void {
    const end = Math.min(chunk.length, this.#sentBytes + bytesMax)
    const bytes = end - this.#sentBytes
    this.#host.writer.data(this.id, chunk, this.#sentBytes, end)
    this.#host.sendWindowBytes -= bytes
    this.#host.moved()
    this.movedAtMs = performance.now()
    this.#sendWindowBytes -= bytes
    this.#waitingBytes -= bytes
    this.#sentBytes = end
    if (end === chunk.length) {
      this.#queue.shift()
      this.#waitingBytes -= PIECE_BYTES
      this.#sentBytes = 0
    }
    if (!this.#full || this.#waitingBytes > WAITING_BYTES_MAX) return
    this.#full = false
    this.listener?.drained()
  }

  /** RFC 9113, section 8.1.1. */
  #isComplete(): boolean {
    return this.#contentLength === -1 || this.#contentLength === this.#bodyBytes
  }

  #tellEnd(): void {
    if (this.#endTold) return
    this.#endTold = true
    this.listener?.end()
  }

  /** Streams are many: the window of each does not bound what all hold. */
  #hold(chunk: Buffer): void {
    const bytes = chunk.length + PIECE_BYTES
    const fits = this.#held.length < HELD_PIECES_MAX && this.#host.budget.takeAhead(bytes)
    if (!fits) return this.reset(CODE.enhanceYourCalm)
    // A small one would hold on to all that was read with it.
    this.#held.push(Buffer.from(chunk))
  }

  #deliver(chunk: Buffer): void {
    this.listener?.data(chunk)
    this.#giveBack()
  }

  /** Lets the peer send on, once half of the window has been taken. */
  #giveBack(): void {
    if (this.remoteEnded || this.localEnded || this.#paused) return
    if (this.#receivedBytes < STREAM_WINDOW_BYTES / 2) return
    this.#host.writer.number(FRAME.windowUpdate, this.id, this.#receivedBytes)
    this.#receivedBytes = 0
  }

  #endLocal(): void {
    this.localEnded = true
    this.#clear()
    // The rest of the request is not wanted: RFC 9113, section 8.1.
    if (!this.remoteEnded) this.#host.writer.number(FRAME.rstStream, this.id, CODE.noError)
    this.#host.ended(this, this.remoteEnded)
  }

  #clear(): void {
    this.#queue = []
    for (const chunk of this.#held) this.#host.budget.give(chunk.length + PIECE_BYTES)
    this.#held = []
    this.#waitingBytes = 0
    this.#sentBytes = 0
    this.#count()
    this.#trailers = undefined
  }
}
