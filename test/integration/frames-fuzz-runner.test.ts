import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { agentMoves, cuts } from '#test/frame-moves.ts'
import { FUZZED_RUNNERS, RunnerUnderFuzz } from '#test/runner-under-fuzz.ts'

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
    },
  )
}

function oneSided({ ends, open }: RunnerUnderFuzz['predicted']): boolean {
  return ends === 0 || open === 0
}
