import type { Socket } from 'node:net'
import { blocks, type BodyBudget } from '#agent/sockets/index.ts'
import type { ConnectionHost, ConnectionLimits } from './connection-host.ts'
import {
  CODE,
  type Code,
  ConnectionError,
  FLAG,
  FRAME,
  FRAME_BYTES_MAX,
  SETTING,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MAX,
} from './format.ts'
import { FrameReader, type FrameSink } from './frame-reader.ts'
import { FrameWriter } from './frame-writer.ts'
import { EMPTY_TABLE } from './header-block.ts'
import { HeaderCollector, unpad } from './header-collector.ts'
import { type DecodedHeader, PSEUDO_NEEDED } from './header-decoder.ts'
import { Patience } from './patience.ts'
import { readSettings, writeSettings } from './settings.ts'
import { H2Stream, STREAM_WINDOW_BYTES, type StreamHost } from './stream.ts'
import { StreamTable } from './stream-table.ts'

/** What all requests of a connection together may be ahead of what has been taken of them. */
const WINDOW_BYTES = 1024 * 1024
const PING_BYTES = 8
const UNFINISHED_FACTOR = 5
/** Payloads of our PINGs: whether the peer lives, and whether it has seen the GOAWAY. */
const ALIVE = Buffer.from('alive?!!')
const GOING = Buffer.from('goodbye!')

/**
 * One peer's HTTP/2 connection (RFC 9113; prior knowledge, no TLS), for as long as it lasts.
 *
 *     greeting --preface, SETTINGS--> open --goAway--> going --PING answered--> draining --last stream--> closed
 *         \                              \______________\___________________________\--fault, peer gone--> closed
 *
 * While it is going, calls that were on their way are still answered; draining, they are not even read.
 */
export class Connection implements FrameSink, StreamHost {
  readonly writer: FrameWriter
  readonly budget: BodyBudget
  sendWindowBytes = WINDOW_BYTES_DEFAULT
  peerFrameBytesMax = FRAME_BYTES_MAX
  readonly #socket: Socket
  readonly #host: ConnectionHost
  readonly #limits: ConnectionLimits
  readonly #reader: FrameReader
  readonly #headers: HeaderCollector
  readonly #patience: Patience
  readonly #streams: StreamTable
  /** Streams that could send if the connection could. */
  readonly #waiting = new Set<H2Stream>()
  #state: 'greeting' | 'open' | 'going' | 'draining' | 'closed' = 'greeting'
  #peerWindowBytes = WINDOW_BYTES_DEFAULT
  /** Of all streams, received and not yet given back to the window. */
  #receivedBytes = 0
  /** The next header block has to begin with the size of our table. */
  #tableDue = false

  constructor(socket: Socket, host: ConnectionHost, limits: ConnectionLimits, onClose: () => void) {
    this.#socket = socket
    this.#host = host
    this.#limits = limits
    this.writer = new FrameWriter(socket)
    this.budget = host.budget
    this.#reader = new FrameReader(this)
    this.#streams = new StreamTable(limits.streamsMax)
    this.#headers = new HeaderCollector(limits.headerBytesMax, host.budget)
    this.#patience = new Patience(limits.keepaliveMs, limits.keepaliveTimeoutMs)
    socket.setNoDelay()
    socket.on('data', (chunk) => this.#read(chunk))
    socket.on('drain', () => this.#drain())
    // What went wrong shows in `close`.
    socket.on('error', ignore)
    socket.on('close', () => {
      this.#over()
      onClose()
    })
    const settings = writeSettings([
      [SETTING.maxConcurrentStreams, limits.streamsMax],
      [SETTING.initialWindowSize, STREAM_WINDOW_BYTES],
      [SETTING.maxHeaderListSize, limits.headerBytesMax],
    ])
    this.writer.frame(FRAME.settings, 0, 0, settings)
    this.writer.number(FRAME.windowUpdate, 0, WINDOW_BYTES - WINDOW_BYTES_DEFAULT)
  }

  /** Looks whether the peer still lives and takes its answers. To be called a few times per `keepaliveTimeoutMs`. */
  look(nowMs: number): void {
    const does = this.#patience.look(nowMs)
    if (does === 'gone' || this.#state === 'closed') return this.destroy()
    // One that has not even greeted is given up for its silence all the same.
    if (does === 'ask' && this.#state !== 'greeting') this.writer.frame(FRAME.ping, 0, 0, ALIVE)
    for (const stream of this.#streams.values()) {
      // A caller may work long on what it has of a stream.
      const patienceMs = this.#limits.stalledMs * (stream.ending ? 1 : UNFINISHED_FACTOR)
      const stalled = stream.waitsForPeer && nowMs - stream.movedAtMs > patienceMs
      if (stalled) stream.reset(CODE.cancel)
    }
  }

  /**
   * Tells the peer to open no more streams; the connection ends with its last one. Only when the peer has answered a PING
   * behind the GOAWAY is it sure that none is on its way.
   */
  goAway(): void {
    if (this.#state === 'greeting') return this.destroy()
    if (this.#state !== 'open') return
    this.#state = 'going'
    this.writer.goaway(WINDOW_BYTES_MAX, CODE.noError)
    this.writer.frame(FRAME.ping, 0, 0, GOING)
  }

  destroy(): void {
    this.#socket.destroy()
  }

  frame(type: number, flags: number, id: number, buffer: Buffer, start: number, end: number): void {
    if (this.#state === 'closed') return
    if (this.#state === 'greeting') this.#greet(type)
    if (!this.#headers.collecting) this.#patience.heard()
    else if (type !== FRAME.continuation) {
      throw new ConnectionError(CODE.protocolError, 'a frame within a header block')
    }
    switch (type) {
      case FRAME.data:
        return this.#onData(flags, id, buffer, start, end)
      case FRAME.headers:
      case FRAME.continuation:
        return this.#onHeaders(type, flags, id, buffer, start, end)
      case FRAME.rstStream:
        return this.#onReset(id, end - start)
      case FRAME.settings:
        return this.#onSettings(flags, id, buffer, start, end)
      case FRAME.ping:
        return this.#onPing(flags, id, buffer, start, end)
      case FRAME.goaway:
        if (id !== 0) throw new ConnectionError(CODE.protocolError, 'GOAWAY of a stream')
        return this.#patience.spend()
      case FRAME.priority:
        return this.#onPriority(id, end - start)
      case FRAME.windowUpdate:
        return this.#onWindowUpdate(id, buffer, start, end)
      case FRAME.pushPromise:
        throw new ConnectionError(CODE.protocolError, 'PUSH_PROMISE from a client')
      default: // Extensions that we do not know.
        this.#patience.spend()
    }
  }

  wait(stream: H2Stream): void {
    this.#waiting.add(stream)
  }

  ended(stream: H2Stream, remoteEnded: boolean): void {
    if (!this.#streams.delete(stream, remoteEnded)) return
    this.#waiting.delete(stream)
    stream.listener?.closed()
    if (this.#state === 'draining' && this.#streams.size === 0) this.#end()
  }

  moved(): void {
    this.#patience.renew()
  }

  broken(): void {
    this.#patience.spendReset()
  }

  block(encoded: Buffer): Buffer {
    if (!this.#tableDue) return encoded
    this.#tableDue = false
    return Buffer.concat([Buffer.from([EMPTY_TABLE]), encoded])
  }

  #read(chunk: Buffer): void {
    blocks.tookNew(chunk.length)
    if (this.#state === 'closed') return
    try {
      this.#reader.push(chunk)
    } catch (error) {
      if (error instanceof ConnectionError) return this.#fail(error.code)
      this.#host.log.error({ err: error }, 'unexpected error in a connection')
      return this.#fail(CODE.internalError)
    }
    // Nothing more is read from a peer that takes nothing.
    if (this.writer.isFull) this.#socket.pause()
  }

  #drain(): void {
    this.#socket.resume()
    this.#goOn()
  }

  #goOn(): void {
    for (const stream of this.#waiting) {
      if (this.sendWindowBytes <= 0 || !this.writer.hasRoom) return
      this.#waiting.delete(stream)
      stream.go()
    }
  }

  #greet(type: number): void {
    if (type !== FRAME.settings) {
      throw new ConnectionError(CODE.protocolError, 'the first frame must be SETTINGS')
    }
    this.#state = 'open'
    if (this.#host.closing) this.goAway()
  }

  #onData(flags: number, id: number, buffer: Buffer, start: number, end: number): void {
    this.#receive(end - start)
    const [from, to] = unpad(flags, buffer, start, end)
    const last = (flags & FLAG.endStream) !== 0
    const stream = this.#streams.get(id)
    if (stream === undefined) return this.#late(id, last)
    if (from === to && !last) this.#patience.spend()
    if (stream.remoteEnded) return stream.reset(CODE.streamClosed)
    stream.receive(buffer.subarray(from, to), end - start, last)
  }

  #late(id: number, last: boolean): void {
    this.#patience.spend()
    this.#streams.late(id, last)
  }

  /** PRIORITY means nothing any more, but must be well-formed. */
  #onPriority(id: number, bytes: number): void {
    if (id === 0) throw new ConnectionError(CODE.protocolError, 'PRIORITY of no stream')
    if (bytes !== 5) throw new ConnectionError(CODE.frameSizeError, `PRIORITY of ${bytes} bytes`)
    this.#patience.spend()
  }

  /** Lets the peer send on, once half of the connection's window has been used: streams hold back their own. */
  #receive(bytes: number): void {
    this.#receivedBytes += bytes
    if (this.#receivedBytes > WINDOW_BYTES) {
      throw new ConnectionError(CODE.flowControlError, 'more DATA than the window allows')
    }
    if (this.#receivedBytes < WINDOW_BYTES / 2) return
    this.writer.number(FRAME.windowUpdate, 0, this.#receivedBytes)
    this.#receivedBytes = 0
  }

  #onHeaders(
    type: number,
    flags: number,
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
  ): void {
    const collected =
      type === FRAME.headers
        ? this.#headers.begin(flags, id, buffer, start, end)
        : this.#headers.goOn(flags, id, buffer, start, end)
    if (collected === undefined) return
    const { header, endStream } = collected
    if (this.#streams.isNew(id)) return this.#begin(id, header, endStream)
    const stream = this.#streams.get(id)
    if (stream === undefined) return this.#late(id, endStream)
    // Trailers, which gRPC has no use for in requests.
    if (stream.remoteEnded) stream.reset(CODE.streamClosed)
    else if (!endStream || !header.valid || header.pseudo !== 0) stream.reset(CODE.protocolError)
    else stream.receiveEnd()
  }

  #begin(id: number, header: DecodedHeader, endStream: boolean): void {
    // The peer has been told that these are not read, and may send them elsewhere.
    if (this.#streams.frozen) return
    this.#streams.lastId = id
    const { headerBytesMax, streamsMax } = this.#limits
    if (this.#streams.size >= streamsMax) return this.#refuse(id, CODE.refusedStream, endStream)
    const whole = header.bytes <= headerBytesMax
    if (!header.valid || (whole && (header.pseudo & PSEUDO_NEEDED) !== PSEUDO_NEEDED)) {
      return this.#refuse(id, CODE.protocolError, endStream)
    }
    this.#patience.renew()
    const stream = new H2Stream(this, id, this.#peerWindowBytes, header.contentLength)
    stream.remoteEnded = endStream
    this.#streams.add(stream)
    stream.listener = this.#host.accept(stream, header.fields, whole)
    if (endStream && !stream.localEnded) stream.receiveEnd()
  }

  #refuse(id: number, code: Code, remoteEnded: boolean): void {
    this.#patience.spend()
    this.writer.number(FRAME.rstStream, id, code)
    if (!remoteEnded) this.#streams.keepReset(id)
  }

  #onReset(id: number, bytes: number): void {
    if (bytes !== 4) throw new ConnectionError(CODE.frameSizeError, `RST_STREAM of ${bytes} bytes`)
    const stream = this.#streams.get(id)
    if (stream === undefined) return this.#patience.spend()
    this.#patience.spendReset()
    stream.reset(undefined)
  }

  #onSettings(flags: number, id: number, buffer: Buffer, start: number, end: number): void {
    if (id !== 0) throw new ConnectionError(CODE.protocolError, 'SETTINGS of a stream')
    this.#patience.spend()
    if ((flags & FLAG.ack) !== 0) {
      if (start !== end)
        throw new ConnectionError(CODE.frameSizeError, 'SETTINGS with ACK and more')
      return
    }
    const { windowBytes, frameBytesMax, tableChanged } = readSettings(buffer, start, end)
    this.peerFrameBytesMax = frameBytesMax ?? this.peerFrameBytesMax
    this.#tableDue ||= tableChanged === true
    this.writer.frame(FRAME.settings, FLAG.ack, 0, NO_BYTES)
    if (windowBytes === undefined) return
    const moreBytes = windowBytes - this.#peerWindowBytes
    this.#peerWindowBytes = windowBytes
    for (const stream of this.#streams.values()) {
      if (!stream.addWindow(moreBytes)) throw tooMuchWindow()
    }
  }

  #onPing(flags: number, id: number, buffer: Buffer, start: number, end: number): void {
    if (id !== 0) throw new ConnectionError(CODE.protocolError, 'PING of a stream')
    const payload = buffer.subarray(start, end)
    if (payload.length !== PING_BYTES) {
      throw new ConnectionError(CODE.frameSizeError, `PING of ${payload.length} bytes`)
    }
    if ((flags & FLAG.ack) === 0) {
      this.#patience.spend()
      this.writer.frame(FRAME.ping, FLAG.ack, 0, payload)
      return
    }
    this.#patience.alive()
    if (this.#state !== 'going' || !payload.equals(GOING)) return
    this.#state = 'draining'
    this.#streams.frozen = true
    this.writer.goaway(this.#streams.lastId, CODE.noError)
    if (this.#streams.size === 0) this.#end()
  }

  #onWindowUpdate(id: number, buffer: Buffer, start: number, end: number): void {
    if (end - start !== 4) {
      throw new ConnectionError(CODE.frameSizeError, `WINDOW_UPDATE of ${end - start} bytes`)
    }
    const bytes = buffer.readUInt32BE(start) & 0x7fff_ffff
    if (id !== 0) {
      const stream = this.#streams.get(id)
      if (bytes === 0) stream?.reset(CODE.protocolError)
      else if (stream?.addWindow(bytes) === false) stream.reset(CODE.flowControlError)
      return
    }
    if (bytes === 0) throw new ConnectionError(CODE.protocolError, 'WINDOW_UPDATE of 0')
    this.sendWindowBytes += bytes
    if (this.sendWindowBytes > WINDOW_BYTES_MAX) throw tooMuchWindow()
    this.#goOn()
  }

  #fail(code: Code): void {
    this.writer.goaway(this.#streams.lastId, code)
    this.#end()
    this.#over()
  }

  /** The peer gets all that has been written, and ends its side; if not, `look` does. */
  #end(): void {
    this.#state = 'closed'
    this.writer.flush()
    this.#socket.end()
  }

  #over(): void {
    this.#state = 'closed'
    this.#headers.close()
    for (const stream of this.#streams.values()) stream.reset(undefined)
  }
}

function tooMuchWindow(): ConnectionError {
  return new ConnectionError(CODE.flowControlError, 'a window of more than 2^31 bytes')
}

const NO_BYTES = Buffer.alloc(0)

function ignore(): void {}
