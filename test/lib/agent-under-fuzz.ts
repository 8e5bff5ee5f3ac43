import assert from 'node:assert/strict'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import { predict } from './agent-model.ts'
import { eventually } from './eventually.ts'
import { bytesOf, pieces, type Move } from './frame-moves.ts'
import { frameBytes, responseBytes, TYPE, type FramePeer } from './frame-peer.ts'
import { invocation, LinkScope } from './invoke-scope.ts'

export interface AgentRound {
  readonly moves: readonly Move[]
  readonly cuts: readonly number[]
  readonly calls: number
  /** The callers of these go away in the middle. */
  readonly aborted: readonly number[]
}

/** What a caller may be told when a runner is hostile. */
const DEFINED = [
  'FUNCTION_ERROR',
  'FUNCTION_BAD_ANSWER',
  'FUNCTION_EXITED',
  'FUNCTION_SATURATED',
  // A runner that says that it was not ready.
  'FUNCTION_UNAVAILABLE',
  'CALLER_GONE',
] as const
/** Below the calls' own time limit, which would end them as well. */
const TOLD_MS = 5_000
const PROBE_ID = 0xabad_cafe

/** The agent's end of two handlers: one whose runner is hostile, and its neighbour, whose runner echoes. */
export class AgentUnderFuzz implements AsyncDisposable {
  readonly #victim: LinkScope
  readonly #neighbour: LinkScope
  readonly #echo: FramePeer
  /** How many rounds had which prediction: of each kind there must be some. */
  readonly predicted = { lives: 0, ends: 0, unknown: 0 }

  private constructor(victim: LinkScope, neighbour: LinkScope, echo: FramePeer) {
    this.#victim = victim
    this.#neighbour = neighbour
    this.#echo = echo
    echo.onFrame = ({ type, id }) => {
      if (type === TYPE.request) echo.send(responseBytes(id, 'fine'))
    }
  }

  static async start(): Promise<AgentUnderFuzz> {
    const victim = await LinkScope.open()
    const neighbour = await LinkScope.open()
    return new AgentUnderFuzz(victim, neighbour, await neighbour.ready())
  }

  /**
   * One connection of the hostile runner. @throws AssertionError when the link does not end, or ends, against the protocol's page;
   * when a caller gets no outcome or an undefined one; when the neighbour is disturbed
   */
  async round({ moves, cuts, calls: count, aborted }: AgentRound): Promise<void> {
    await using peer = await this.#victim.ready()
    const callers = Array.from({ length: count }, () => new AbortController())
    const outcomes = callers.map(({ signal }) => outcomeOf(this.#victim, signal))
    for (let call = 0; call < count; call++) await peer.next(TYPE.request)

    for (const piece of pieces(bytesOf(moves), cuts)) {
      if (peer.closed) break
      peer.send(piece)
      await turn()
      for (const call of aborted) callers[call]?.abort()
    }
    const expected = predict(moves, count)
    this.predicted[expected.link] += 1
    if (expected.link !== 'unknown' && aborted.length === 0) {
      peer.send(frameBytes(TYPE.ping, PROBE_ID))
      await eventually(
        () =>
          peer.closed || peer.frames.some(({ type, id }) => type === TYPE.pong && id === PROBE_ID),
        { everyMs: 1 },
      )
      assert.equal(peer.closed ? 'ends' : 'lives', expected.link, this.#victim.ends.at(-1)?.reason)
    }
    peer.socket.destroy()
    await eventually(() => this.#victim.ends.length === 1, { everyMs: 1 })
    assert.match(this.#victim.ends[0]?.kind ?? '', /^(?:protocol|exited)$/)
    this.#victim.ends.length = 0
    this.#victim.links.length = 0
    this.#victim.lines.length = 0

    const late = sleep(TOLD_MS, undefined, { ref: false }).then(() => {
      throw new Error(`a caller has heard nothing for ${TOLD_MS} ms`)
    })
    const seen = await Promise.race([Promise.all(outcomes), late])
    for (const outcome of seen)
      assert.ok(outcome === 'ok' || DEFINED.some((code) => code === outcome), outcome)
    if (expected.link !== 'unknown' && aborted.length === 0) {
      const told = seen.map((outcome) => outcome === 'ok')
      assert.deepEqual(
        told,
        expected.calls.map((end) => end === 'ok'),
      )
    }
    assert.equal(await outcomeOf(this.#neighbour, new AbortController().signal), 'ok')
    assert.equal(this.#echo.closed, false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#echo[Symbol.asyncDispose]()
    await this.#neighbour[Symbol.asyncDispose]()
    await this.#victim[Symbol.asyncDispose]()
  }
}

async function outcomeOf(scope: LinkScope, signal: AbortSignal): Promise<string> {
  try {
    const { body } = await scope.router.invoke(invocation(), signal)
    if (!Buffer.isBuffer(body)) for await (const chunk of body) assert(Buffer.isBuffer(chunk))
    return 'ok'
  } catch (error) {
    return Fault.from(error).code
  }
}
