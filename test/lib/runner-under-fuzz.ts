import assert from 'node:assert/strict'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import type { Runtime } from '#shared/schemas/names.ts'
import { bytesOf, pieces, type Move } from './frame-moves.ts'
import { TYPE as FRAME } from './frame-peer.ts'
import type { RunnerSession } from './runner-client.ts'
import { RunnerScope } from './runner-scope.ts'

export interface RunnerRound {
  readonly moves: readonly Move[]
  readonly cuts: readonly number[]
}

export interface FuzzedRunner {
  readonly runtime: Runtime
  /** Of the conformance suite. */
  readonly fixture: string
}

/** Every kind of runner there is. */
export const FUZZED_RUNNERS: readonly FuzzedRunner[] = [
  { runtime: 'nodejs', fixture: 'nodejs' },
  { runtime: 'python3', fixture: 'python3' },
  { runtime: 'python3', fixture: 'python3-async' },
  { runtime: 'binary', fixture: 'binary' },
]

const PAYLOAD_BYTES_MAX = 1_114_112
const PING_BYTES_MAX = 64
/** Its fixed fields. */
const REQUEST_BYTES_MIN = 6
const ANSWER_MS = 30_000

/** A real runner as a process, spoken to badly on one connection after the other. */
export class RunnerUnderFuzz implements AsyncDisposable {
  readonly #scope: RunnerScope
  #next: RunnerSession
  /** How many rounds the page wants to end the connection, and how many it leaves open. */
  readonly predicted = { ends: 0, open: 0 }

  private constructor(scope: RunnerScope, first: RunnerSession) {
    this.#scope = scope
    this.#next = first
  }

  static async start({ runtime, fixture }: FuzzedRunner): Promise<RunnerUnderFuzz> {
    const scope = await RunnerScope.start({ runtime, fn: fixture })
    return new RunnerUnderFuzz(scope, await scope.ready())
  }

  residentMiB(): Promise<number> {
    return this.#scope.residentMiB()
  }

  /**
   * One connection. @throws Error when the runner ends, does not connect again, does not answer a call on the next connection, or keeps a
   * connection that the protocol ends
   */
  async round({ moves, cuts }: RunnerRound): Promise<void> {
    const session = this.#next
    // Only frames that are read as they were meant say what must follow.
    const mustEnd = firstBreach(moves)
    this.predicted[mustEnd ? 'ends' : 'open'] += 1
    let isClosed = false
    void session.closed.then(() => (isClosed = true))
    for (const piece of pieces(bytesOf(moves), cuts)) {
      if (isClosed) break
      session.socket.write(piece)
      await turn()
    }
    if (mustEnd) await within(session.closed, 'the connection goes on')
    // Behind a lie a PING would be read as something else.
    else if (moves.every(({ length }) => length === undefined)) {
      await within(Promise.race([session.ping(), session.closed]), 'neither PONG nor end')
    }
    session.socket.destroy()
    await session.closed
    const next = await within(this.#again(), 'the runner does not come back')
    const { text } = await within(next.call({ path: '/echo', body: 'well' }), 'no answer')
    assert.equal(text, 'well')
    assert.equal(this.#scope.child.exitCode, null)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]()
  }

  async #again(): Promise<RunnerSession> {
    this.#next = await this.#scope.again()
    return this.#next
  }
}

/** True when a frame breaks the protocol by itself, whatever came before. What comes behind a lie about a length cannot be told. */
function firstBreach(moves: readonly Move[]): boolean {
  for (const { type, id, payload, length = payload.length } of moves) {
    if (length > PAYLOAD_BYTES_MAX) return true
    if (length !== payload.length) return false
    if (type === FRAME.init || type === FRAME.hello || type === FRAME.ready) return true
    if (type === FRAME.ping && length > PING_BYTES_MAX) return true
    if (type === FRAME.request && (id === 0 || length < REQUEST_BYTES_MIN)) return true
  }
  return false
}

async function within<T>(promise: Promise<T>, otherwise: string): Promise<T> {
  const end = new AbortController()
  const late = sleep(ANSWER_MS, undefined, { signal: end.signal }).then(() => {
    throw new Error(`${otherwise} after ${ANSWER_MS} ms`)
  })
  late.catch(() => undefined)
  try {
    return await Promise.race([promise, late])
  } finally {
    end.abort()
  }
}
