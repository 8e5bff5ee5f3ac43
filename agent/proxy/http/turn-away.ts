import type { Socket } from 'node:net'
import { Fault } from '#shared/fault.ts'
import { faultAnswer } from './answer-fault.ts'
import { dateLine, statusLine } from './answer-head.ts'

/** So many at once are told why; what comes beyond them is closed without a word. */
const TOLD_MAX = 64
/** For a peer to take the answer. */
const TELL_MS = 1_000

/** Answers connections for which there is no room: 503, whatever they ask, and their end. */
export class TurnAway {
  #telling = 0

  take(socket: Socket): void {
    if (this.#telling >= TOLD_MAX) {
      socket.destroy()
      return
    }
    this.#telling += 1
    const timer = setTimeout(() => socket.destroy(), TELL_MS)
    socket.on('error', ignore)
    socket.on('close', () => {
      clearTimeout(timer)
      this.#telling -= 1
    })
    // What it asks is read away: unread, it would make the kernel reset the connection, answer and all.
    socket.resume()
    const fault = new Fault('FUNCTION_UNAVAILABLE', 'this node has as many connections as it may', {
      retryAfterMs: 1_000,
    })
    const { head, body } = faultAnswer(fault, undefined)
    const text = `${statusLine(head.status)}${head.lines}${dateLine()}Connection: close\r\n\r\n`
    socket.end(Buffer.concat([Buffer.from(text, 'latin1'), body]))
  }
}

function ignore(): void {}
