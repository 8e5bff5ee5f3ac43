import { CODE, ConnectionError } from './format.ts'

/** Frames that cost us work and bring no call forward, between two calls or two looks: more than any client needs. */
const IDLE_FRAMES_MAX = 1_000
/** Streams that are reset by the peer, or by us for its fault, between two looks: each may have made a function work for nothing. */
const RESETS_MAX = 2_500

/** The answer to a PING may wait behind what the peer sends: for so many times as long, while whole frames of it come. */
const LATE_TIMES = 15

/** How long a peer may be silent, and how much it may ask for. */
export class Patience {
  readonly #keepaliveMs: number
  readonly #timeoutMs: number
  #askAtMs = performance.now()
  #askedAtMs: number | undefined
  /** Since the last look. */
  #heard = false
  /** By the look behind it; only right once asked. */
  #heardAtMs = 0
  #idleFrames = 0
  #resets = 0

  constructor(keepaliveMs: number, timeoutMs: number) {
    this.#keepaliveMs = keepaliveMs
    this.#timeoutMs = timeoutMs
    this.alive()
  }

  /** What to do now: ask the peer for a sign of life, or give it up. */
  look(nowMs: number): 'ask' | 'gone' | undefined {
    this.#idleFrames = 0
    this.#resets = 0
    if (this.#heard) this.#heardAtMs = nowMs
    this.#heard = false
    if (this.#askedAtMs === undefined) {
      if (nowMs < this.#askAtMs) return undefined
      this.#askedAtMs = nowMs
      return 'ask'
    }
    const sinceMs = Math.max(this.#askedAtMs, this.#heardAtMs)
    const silent = nowMs - sinceMs > this.#timeoutMs
    return silent || nowMs - this.#askedAtMs > LATE_TIMES * this.#timeoutMs ? 'gone' : undefined
  }

  /** A whole frame has come. */
  heard(): void {
    this.#heard = true
  }

  /** The peer has answered. */
  alive(): void {
    this.#askedAtMs = undefined
    this.#askAtMs = performance.now() + this.#keepaliveMs
  }

  /** A call has begun, or an answer has moved on. */
  renew(): void {
    this.#idleFrames = 0
  }

  /** A frame of no use to a call. @throws ConnectionError `ENHANCE_YOUR_CALM` */
  spend(): void {
    this.#idleFrames += 1
    if (this.#idleFrames > IDLE_FRAMES_MAX) throw calm('frames')
  }

  /** A stream that the peer has reset, or had us reset. @throws ConnectionError `ENHANCE_YOUR_CALM` */
  spendReset(): void {
    this.#resets += 1
    if (this.#resets > RESETS_MAX) throw calm('resets')
  }
}

function calm(what: string): ConnectionError {
  return new ConnectionError(CODE.enhanceYourCalm, `too many ${what}`)
}
