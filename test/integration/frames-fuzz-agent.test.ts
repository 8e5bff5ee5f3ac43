import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { AgentUnderFuzz, type AgentRound } from '#test/agent-under-fuzz.ts'
import { collectGarbage } from '#test/collect-garbage.ts'
import { eventually } from '#test/eventually.ts'
import { cuts, runnerMoves, type Move } from '#test/frame-moves.ts'
import { responseBytes, TYPE } from '#test/frame-peer.ts'

const calls = fc.integer({ min: 0, max: 5 })
/** What may be held on to after garbage collection. Measured: 2 MiB, most of it code that has been compiled meanwhile. */
const GROWN_MIB_MAX = 16
/** Measured: 160 to 220 MiB, 110 of them before the first round; in it are the hostile peers and the frames they make. */
const RESIDENT_MIB_MAX = 450

it(
  'a runner that sends any frames in any order: its link ends or lives as the protocol says, all callers hear, the neighbour serves',
  { timeout: 120_000 },
  async () => {
    await using agent = await AgentUnderFuzz.start()
    const beforeMiB = heldMiB()
    const round = fc.record({ moves: runnerMoves, cuts, calls, aborted: fc.constant([]) })
    await fc.assert(
      fc.asyncProperty(round, (one) => agent.round(one)),
      { numRuns: 150 },
    )
    const { lives, ends } = agent.predicted
    assert.ok(lives > 10 && ends > 10, JSON.stringify(agent.predicted))
    await assertLetsGo(agent, beforeMiB)
  },
)

it(
  'the same while callers go away: every caller hears, and the next runner is served',
  { timeout: 120_000 },
  async () => {
    await using agent = await AgentUnderFuzz.start()
    const beforeMiB = heldMiB()
    const aborted = fc.uniqueArray(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 3 })
    const round = fc.record({ moves: runnerMoves, cuts, calls, aborted })
    await fc.assert(
      fc.asyncProperty(round, (one) => agent.round(one)),
      { numRuns: 80 },
    )
    await assertLetsGo(agent, beforeMiB)
  },
)

/** After rounds that bring twice as much as may be held on to, of answers as well as of what is nobody's. */
async function assertLetsGo(agent: AgentUnderFuzz, beforeMiB: number): Promise<void> {
  const large = largeRound()
  for (let round = 0; round < 2 * GROWN_MIB_MAX; round++) await agent.round(large)
  // What was on its way through a socket goes with the socket.
  await eventually(() => {
    const grownMiB = heldMiB() - beforeMiB
    assert.ok(grownMiB < GROWN_MIB_MAX, `${grownMiB} MiB more than before`)
    return true
  })
  const residentMiB = process.memoryUsage.rss() / 2 ** 20
  assert.ok(residentMiB < RESIDENT_MIB_MAX, `${residentMiB} MiB resident`)
}

/** Four answers of a whole window, none of which ends, and 1 MiB for a call that there is not. */
function largeRound(): AgentRound {
  const answers = [1, 2, 3, 4].map((id): Move => {
    const payload = responseBytes(id, Buffer.alloc(262_144)).subarray(12)
    return { type: TYPE.response, id, payload, end: false, times: 1 }
  })
  const payload = Buffer.alloc(1_048_576)
  const stray: Move = { type: TYPE.data, id: 99, payload, end: false, times: 1 }
  return { moves: [...answers, stray], cuts: [65_536], calls: 4, aborted: [] }
}

function heldMiB(): number {
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return (heapUsed + external) / 2 ** 20
}
