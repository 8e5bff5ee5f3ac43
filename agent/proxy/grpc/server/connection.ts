import { constants, performServerHandshake, type ServerHttp2Session } from 'node:http2'
import type { Socket } from 'node:net'
import { type AcceptHost, acceptCall } from './accept-call.ts'
import { Http2CallStream } from './http2-stream.ts'

export interface ConnectionLimits {
  readonly streamsMax: number
  readonly headerBytesMax: number
  /** A peer is asked for a sign of life this long after its last one ... */
  readonly keepaliveMs: number
  /** ... and is gone when it gives none for this long. */
  readonly keepaliveTimeoutMs: number
}

/** PINGs or SETTINGS without a call between them, from one look to the next: more than any client needs. */
const CONTROL_FRAMES_MAX = 1_000
const STREAM_WINDOW_BYTES = 256 * 1024
const WINDOW_BYTES = 1024 * 1024

/** One peer's HTTP/2 connection (prior knowledge, no TLS), for as long as it lasts. */
export class Connection {
  readonly #session: ServerHttp2Session
  readonly #limits: ConnectionLimits
  #controlFrames = 0
  #pingAtMs: number
  #unansweredSinceMs: number | undefined

  constructor(socket: Socket, host: AcceptHost, limits: ConnectionLimits, onClose: () => void) {
    this.#limits = limits
    this.#pingAtMs = performance.now() + limits.keepaliveMs
    const session = performServerHandshake(socket, {
      streamResetBurst: 1_000,
      streamResetRate: 500,
      settings: {
        enablePush: false,
        initialWindowSize: STREAM_WINDOW_BYTES,
        maxConcurrentStreams: limits.streamsMax,
        maxHeaderListSize: limits.headerBytesMax,
      },
    })
    session.setLocalWindowSize(WINDOW_BYTES)
    session.on('stream', (stream, _headers, _flags, header) => {
      this.#controlFrames = 0
      const callStream = new Http2CallStream(stream)
      const listener = acceptCall(host, callStream, header)
      if (listener !== undefined) callStream.listen(listener)
    })
    session.on('ping', () => this.#countControlFrame())
    session.on('remoteSettings', () => this.#countControlFrame())
    // Faults of the connection: its calls hear of them by `close`.
    session.on('error', () => undefined)
    session.on('close', onClose)
    this.#session = session
  }

  /** Looks whether the peer still lives. To be called a few times per `keepaliveTimeoutMs`. */
  look(nowMs: number): void {
    this.#controlFrames = 0
    const since = this.#unansweredSinceMs
    if (since !== undefined) {
      if (nowMs - since > this.#limits.keepaliveTimeoutMs) this.#session.destroy()
      return
    }
    if (nowMs < this.#pingAtMs || this.#session.closed) return
    this.#unansweredSinceMs = nowMs
    this.#session.ping((error) => {
      if (error !== null) return
      this.#unansweredSinceMs = undefined
      this.#pingAtMs = performance.now() + this.#limits.keepaliveMs
    })
  }

  /** Tells the peer to open no more streams; the connection ends with its last call. */
  goAway(): void {
    this.#session.close()
  }

  destroy(): void {
    this.#session.destroy()
  }

  #countControlFrame(): void {
    this.#controlFrames += 1
    if (this.#controlFrames <= CONTROL_FRAMES_MAX) return
    this.#session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM)
  }
}
