import { CODE, ConnectionError } from './format.ts'

/** Frames that cost us work and bring no call forward, between two calls or two looks: more than any client needs. */
const IDLE_FRAMES_MAX = 1_000
/** Streams that are reset by the peer, between two looks: each may have made a function work for nothing. */
const RESETS_MAX = 2_500

/** How long a peer may be silent, and how much it may ask for. */
export class Patience {
  readonly #keepaliveMs: number
  readonly #timeoutMs: number
  #askAtMs = performance.now()
  #askedAtMs: number | undefined
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
    if (this.#askedAtMs !== undefined) {
      return nowMs - this.#askedAtMs > this.#timeoutMs ? 'gone' : undefined
    }
    if (nowMs < this.#askAtMs) return undefined
    this.#askedAtMs = nowMs
    return 'ask'
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

  /** A stream that the peer has reset. @throws ConnectionError `ENHANCE_YOUR_CALM` */
  spendReset(): void {
    this.#resets += 1
    if (this.#resets > RESETS_MAX) throw calm('resets')
  }
}

function calm(what: string): ConnectionError {
  return new ConnectionError(CODE.enhanceYourCalm, `too many ${what}`)
}
