import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { blocks, takenBytes } from '#agent/sockets/index.ts'
import { ANSWER_START, type AnswerHead, dateLine, statusLine } from './answer-head.ts'

/** Up to here a body is copied behind its head: one piece is written faster than two. */
const JOINED_BYTES_MAX = 4 * 1024

/** The sending half of a connection: one answer after another, each in as few writes as it can be. */
export class Outlet {
  readonly #socket: Socket
  readonly #keepLines: string
  /** How much of the next answer's start has been sent already. */
  #ahead = 0
  #stream: AnswerStream | undefined
  /** -1: not looked at yet, so that time begins with the first look. */
  #takenBytes = -1
  #takenAtMs = 0

  constructor(socket: Socket, idleTimeoutMs: number) {
    this.#socket = socket
    this.#keepLines = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(idleTimeoutMs / 1000)}\r\n\r\n`
    socket.on('drain', () => this.#stream?.resume())
  }

  /** An answer's head has been sent, and its body has not ended. */
  get streaming(): boolean {
    return this.#stream !== undefined
  }

  /** `HTTP/1.1 100 Continue`, before the answer, which begins like it: what went ahead of the one is the start of the other. */
  continue(): void {
    this.#socket.write(this.#rest(`${ANSWER_START}100 Continue\r\n\r\n`), 'latin1')
  }

  /**
   * Sends one more byte of what every answer, or every chunk of one, may begin with: the only way to learn from TCP whether a
   * peer that has ended its side still listens. False when there is none left to send.
   */
  sendAhead(): boolean {
    if (this.#stream !== undefined) return this.#stream.sendAhead()
    if (this.#ahead === ANSWER_START.length) return false
    this.#socket.write(ANSWER_START.charAt(this.#ahead), 'latin1')
    this.#ahead += 1
    return true
  }

  /**
   * @param last - the connection ends with this answer
   * @param sent - the kernel has the body, or never will
   */
  whole(head: AnswerHead, last: boolean, body: Buffer, sent?: () => void): void {
    const socket = this.#socket
    const text = this.#text(head, '', last)
    const { length } = body
    if (length === 0) socket.write(text, 'latin1')
    else if (length <= JOINED_BYTES_MAX) {
      socket.write(text + body.latin1Slice(0, length), 'latin1')
    } else {
      socket.cork()
      socket.write(text, 'latin1')
      socket.write(body, () => {
        blocks.give(body)
        sent?.()
      })
      socket.uncork()
    }
  }

  /**
   * @param chunked - else the body ends with the connection
   * @param onBehind - told when the peer takes less than comes, and when it has caught up
   * @param ended - called once: true when the whole body has been handed to the socket, false when it broke off
   */
  stream(
    head: AnswerHead,
    last: boolean,
    body: Readable,
    chunked: boolean,
    onBehind: (behind: boolean) => void,
    ended: (whole: boolean) => void,
  ): void {
    const socket = this.#socket
    // The head leaves with the first bytes of the body when they are there already.
    socket.cork()
    process.nextTick(() => socket.uncork())
    socket.write(this.#text(head, chunked ? CHUNKED_LINE : '', last), 'latin1')
    this.#stream = new AnswerStream(socket, body, chunked, onBehind, (whole) => {
      this.#stream = undefined
      ended(whole)
    })
  }

  /** The connection has gone: nobody reads the rest of the body. */
  close(): void {
    this.#stream?.close()
    this.#stream = undefined
  }

  /** Nothing of what waits here has been taken by the peer for this long. To be asked now and then. */
  isStalled(nowMs: number, timeoutMs: number): boolean {
    const bytes = takenBytes(this.#socket)
    if (this.#socket.writableLength === 0 || bytes !== this.#takenBytes) {
      this.#takenBytes = bytes
      this.#takenAtMs = nowMs
    }
    return nowMs - this.#takenAtMs > timeoutMs
  }

  #text({ status, lines, dated }: AnswerHead, framing: string, last: boolean): string {
    const date = dated ? '' : dateLine()
    return this.#rest(
      statusLine(status) + lines + framing + date + (last ? CLOSE_LINES : this.#keepLines),
    )
  }

  /** What of it has not gone ahead. */
  #rest(text: string): string {
    if (this.#ahead === 0) return text
    const rest = text.slice(this.#ahead)
    this.#ahead = 0
    return rest
  }
}

const CHUNKED_LINE = 'transfer-encoding: chunked\r\n'
const CLOSE_LINES = 'Connection: close\r\n\r\n'
/** With the digits of the largest chunk's size less than 16, which every parser takes. */
const ZEROS_MAX = 8
/** Small pieces that wait for the socket; then the function waits as well. */
const SMALL_WAITING_MAX = 256

/** A function's answer on its way to the socket, at the pace of the peer. */
class AnswerStream {
  readonly #socket: Socket
  readonly #body: Readable
  readonly #chunked: boolean
  readonly #onBehind: (behind: boolean) => void
  readonly #ended: (whole: boolean) => void
  /** Sent ahead of the next chunk's size. */
  #zeros = 0
  #over = false
  #smallWaiting = 0

  constructor(
    socket: Socket,
    body: Readable,
    chunked: boolean,
    onBehind: (behind: boolean) => void,
    ended: (whole: boolean) => void,
  ) {
    this.#socket = socket
    this.#body = body
    this.#chunked = chunked
    this.#onBehind = onBehind
    this.#ended = ended
    body.on('data', this.#onData)
    body.on('end', this.#onEnd)
    body.on('error', this.#onBreak)
    body.on('close', this.#onBreak)
    // It broke before anybody listened.
    if (body.destroyed) process.nextTick(this.#onBreak)
  }

  /** The socket has room again. */
  resume(): void {
    this.#onBehind(false)
    this.#body.resume()
  }

  /** A chunk's size may have leading zeros (RFC 9112 section 7.1). */
  sendAhead(): boolean {
    if (!this.#chunked || this.#zeros === ZEROS_MAX) return false
    this.#zeros += 1
    this.#socket.write('0', 'latin1')
    return true
  }

  close(): void {
    this.#over = true
    this.#body.destroy()
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#over || chunk.length === 0) return
    const socket = this.#socket
    this.#zeros = 0
    if (chunk.length <= JOINED_BYTES_MAX) {
      this.#writeSmall(chunk)
    } else if (this.#chunked) {
      socket.cork()
      socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1')
      socket.write(chunk, () => blocks.give(chunk))
      socket.write('\r\n', 'latin1')
      socket.uncork()
    } else {
      socket.write(chunk, () => blocks.give(chunk))
    }
    if (!socket.writableNeedDrain) return
    this.#body.pause()
    this.#onBehind(true)
  }

  /** In one write. Each that waits takes memory of its own, and a function may make each piece of one byte: so not many wait. */
  #writeSmall(chunk: Buffer): void {
    const socket = this.#socket
    const bytes = chunk.latin1Slice(0, chunk.length)
    const text = this.#chunked ? `${chunk.length.toString(16)}\r\n${bytes}\r\n` : bytes
    blocks.give(chunk)
    this.#smallWaiting = socket.writableLength === 0 ? 0 : this.#smallWaiting + 1
    if (this.#smallWaiting < SMALL_WAITING_MAX) return void socket.write(text, 'latin1')
    this.#smallWaiting = 0
    socket.write(text, 'latin1', () => {
      if (!this.#over && !socket.writableNeedDrain) this.resume()
    })
    this.#body.pause()
    this.#onBehind(true)
  }

  readonly #onEnd = (): void => {
    if (this.#over) return
    this.#over = true
    if (this.#chunked) this.#socket.write('0\r\n\r\n', 'latin1')
    this.#ended(true)
  }

  readonly #onBreak = (): void => {
    if (this.#over) return
    this.#over = true
    this.#body.destroy()
    // Zeros and then the end of the connection could be taken for the last chunk.
    if (this.#zeros > 0) this.#socket.write('cut off', 'latin1')
    this.#ended(false)
  }
}
