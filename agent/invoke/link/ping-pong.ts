import { Fault } from '#shared/fault.ts'
import { FRAME } from '../frames/index.ts'
import type { FrameWriter } from '../frames/index.ts'

const OVERDUE_MS = 1_000
const PAUSE_MS = 1_000

/** PING and PONG of one link: at most one under way, so one that is not answered says how long the loop has been blocked. */
export class PingPong {
  readonly #writer: FrameWriter
  readonly #nowMs: () => number
  #id = 0
  /** When the PING under way was sent; undefined when none is. */
  #sentAtMs: number | undefined
  #lastMs = Number.NEGATIVE_INFINITY
  #waiting: { resolve: (ms: number) => void; reject: (fault: Fault) => void }[] = []

  /** @param nowMs - monotonic */
  constructor(writer: FrameWriter, nowMs: () => number) {
    this.#writer = writer
    this.#nowMs = nowMs
  }

  get overdue(): boolean {
    return this.#sentAtMs !== undefined && this.#nowMs() - this.#sentAtMs >= OVERDUE_MS
  }

  probe(): void {
    const nowMs = this.#nowMs()
    if (this.#sentAtMs === undefined && nowMs - this.#lastMs >= PAUSE_MS) this.#send(nowMs)
  }

  async ping(timeoutMs: number): Promise<number> {
    if (this.#sentAtMs === undefined) this.#send(this.#nowMs())
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const waiter = { resolve, reject }
    this.#waiting.push(waiter)
    const timer = setTimeout(() => {
      this.#waiting = this.#waiting.filter((other) => other !== waiter)
      reject(new Fault('FUNCTION_UNAVAILABLE', `No PONG within ${timeoutMs} ms`))
    }, timeoutMs)
    try {
      return await promise
    } finally {
      clearTimeout(timer)
    }
  }

  /** A PONG that nobody asked for is ignored. */
  pong(id: number): void {
    if (this.#sentAtMs === undefined || id !== this.#id) return
    const tookMs = this.#nowMs() - this.#sentAtMs
    this.#sentAtMs = undefined
    for (const { resolve } of this.#waiting.splice(0)) resolve(tookMs)
  }

  fail(fault: Fault): void {
    this.#sentAtMs = undefined
    for (const { reject } of this.#waiting.splice(0)) reject(fault)
  }

  #send(nowMs: number): void {
    this.#id = (this.#id + 1) >>> 0
    this.#sentAtMs = nowMs
    this.#lastMs = nowMs
    this.#writer.control(FRAME.ping, this.#id, Buffer.alloc(0))
  }
}
