import type { Socket } from 'node:net'

/** A peer that is silent for this long after the last answer is left alone: it has had it, or never will. */
const SILENT_MS = 2_000
/** One that goes on sending is listened to for this long, and to so many bytes. */
const TOTAL_MS = 30_000
const BYTES_MAX = 64 * 1024 * 1024

/**
 * The end of a connection whose last answer has been sent: closes our side, and what still comes is thrown away for a while.
 * Closing all at once would make the kernel answer it with a reset, which overtakes the answer (RFC 9112 section 9.6).
 */
export class Linger {
  /** When it is enough; never, until all has been sent. */
  dueAtMs = Number.POSITIVE_INFINITY
  readonly #enough: () => void
  readonly #clock: { readonly nowMs: number }
  #endsAtMs = Number.POSITIVE_INFINITY
  #bytesLeft = BYTES_MAX

  /** @param enough - called when the peer has sent too much: ends the connection at once */
  constructor(socket: Socket, clock: { readonly nowMs: number }, enough: () => void) {
    this.#enough = enough
    this.#clock = clock
    socket.end(() => {
      this.#endsAtMs = clock.nowMs + TOTAL_MS
      this.dueAtMs = clock.nowMs + SILENT_MS
    })
  }

  /** That much was thrown away. */
  read(bytes: number): void {
    this.#bytesLeft -= bytes
    if (this.#bytesLeft < 0) this.#enough()
    else if (this.#endsAtMs !== Number.POSITIVE_INFINITY) {
      this.dueAtMs = Math.min(this.#endsAtMs, this.#clock.nowMs + SILENT_MS)
    }
  }
}
