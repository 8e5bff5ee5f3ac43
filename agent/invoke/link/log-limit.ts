/** What a handler may write in a second, and at once after a pause. */
const BYTES_PER_S = 1024 * 1024
/** What a line costs beside its text: it is kept, sent on and written to a file as a line of its own. */
const LINE_BYTES = 256
/** Who writes more is not heard for so long. */
const MUTE_MS = 250

export interface LogLimitOptions {
  /** Monotonic. */
  readonly nowMs: () => number
  /** So many lines were not admitted. Must not throw. */
  readonly onDropped: (lines: number) => void
}

/** Keeps one handler that writes lines without end from taking the whole node's time. */
export class LogLimit {
  readonly #options: LogLimitOptions
  #leftBytes = BYTES_PER_S
  #filledAtMs: number
  #dropped = 0
  #muted: NodeJS.Timeout | undefined

  constructor(options: LogLimitOptions) {
    this.#options = options
    this.#filledAtMs = options.nowMs()
  }

  /** False: the line has to be dropped, which is told later, for many together. */
  admits(textBytes: number): boolean {
    if (this.#muted === undefined) {
      this.#fill()
      this.#leftBytes -= textBytes + LINE_BYTES
      if (this.#leftBytes >= 0) return true
      this.#muted = setTimeout(() => this.#tell(), MUTE_MS)
      this.#muted.unref()
    }
    this.#dropped += 1
    return false
  }

  /** No line comes any more: tells what has not been told yet. */
  close(): void {
    clearTimeout(this.#muted)
    if (this.#dropped > 0) this.#tell()
  }

  #fill(): void {
    const nowMs = this.#options.nowMs()
    const gained = ((nowMs - this.#filledAtMs) * BYTES_PER_S) / 1_000
    this.#leftBytes = Math.min(BYTES_PER_S, this.#leftBytes + gained)
    this.#filledAtMs = nowMs
  }

  #tell(): void {
    const lines = this.#dropped
    this.#muted = undefined
    this.#dropped = 0
    this.#options.onDropped(lines)
  }
}
