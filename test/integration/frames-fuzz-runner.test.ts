import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { agentMoves, cuts, type Move } from '#test/frame-moves.ts'
import { TYPE } from '#test/frame-peer.ts'
import { encodeRequest } from '#test/runner-client.ts'
import { FUZZED_RUNNERS, RunnerUnderFuzz, type RunnerRound } from '#test/runner-under-fuzz.ts'

/** By fixture. The most that was measured, with many more rounds: 135, 29, 28 and 26 MiB. */
const RESIDENT_MIB_MAX: Readonly<Record<string, number>> = {
  nodejs: 280,
  python3: 64,
  'python3-async': 64,
  binary: 64,
}

for (const subject of FUZZED_RUNNERS) {
  it(
    `runner ${subject.fixture}, sent any frames in any order: it neither ends nor hangs, and serves the next connection`,
    { timeout: 120_000 },
    async () => {
      await using runner = await RunnerUnderFuzz.start(subject)
      const round = fc.record({ moves: agentMoves, cuts })
      const some = async (numRuns: number): Promise<void> => {
        await fc.assert(
          fc.asyncProperty(round, (one) => runner.round(one)),
          { numRuns },
        )
      }
      await some(40)
      // Chance may have made all of one kind.
      for (let more = 0; more < 20 && oneSided(runner.predicted); more++) await some(20)
      const { ends, open } = runner.predicted
      assert.ok(ends > 0 && open > 0, JSON.stringify(runner.predicted))
      await assertLetsGo(runner, RESIDENT_MIB_MAX[subject.fixture] ?? 0)
    },
  )
}

function oneSided({ ends, open }: RunnerUnderFuzz['predicted']): boolean {
  return ends === 0 || open === 0
}

/** After rounds that bring as much as the runner may take in all, of calls' bodies as well as of what is nobody's. */
async function assertLetsGo(runner: RunnerUnderFuzz, residentMiBMax: number): Promise<void> {
  const large = largeRound()
  for (let round = 0; round < residentMiBMax / 2; round++) await runner.round(large)
  const residentMiB = await runner.residentMiB()
  assert.ok(residentMiB < residentMiBMax, `${residentMiB} MiB`)
}

/** Eight calls with a whole window of a body that never ends, and twice 1 MiB for a call that there is not. */
function largeRound(): RunnerRound {
  const body = Buffer.alloc(262_144)
  const calls = [1, 2, 3, 4, 5, 6, 7, 8].map((id): Move => {
    const payload = encodeRequest(id, { path: '/echo', body }, false).subarray(12)
    return { type: TYPE.request, id, payload, end: false, times: 1 }
  })
  const payload = Buffer.alloc(1_048_576)
  const strays: Move = { type: TYPE.data, id: 99, payload, end: false, times: 2 }
  return { moves: [...calls, strays], cuts: [65_536] }
}
