import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { AgentUnderFuzz } from '#test/agent-under-fuzz.ts'
import { cuts, runnerMoves } from '#test/frame-moves.ts'

const calls = fc.integer({ min: 0, max: 5 })

it(
  'a runner that sends any frames in any order: its link ends or lives as the protocol says, all callers hear, the neighbour serves',
  { timeout: 120_000 },
  async () => {
    await using agent = await AgentUnderFuzz.start()
    const round = fc.record({ moves: runnerMoves, cuts, calls, aborted: fc.constant([]) })
    await fc.assert(
      fc.asyncProperty(round, (one) => agent.round(one)),
      { numRuns: 150 },
    )
    const { lives, ends } = agent.predicted
    assert.ok(lives > 10 && ends > 10, JSON.stringify(agent.predicted))
  },
)

it(
  'the same while callers go away: every caller hears, and the next runner is served',
  { timeout: 120_000 },
  async () => {
    await using agent = await AgentUnderFuzz.start()
    const aborted = fc.uniqueArray(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 3 })
    const round = fc.record({ moves: runnerMoves, cuts, calls, aborted })
    await fc.assert(
      fc.asyncProperty(round, (one) => agent.round(one)),
      { numRuns: 80 },
    )
  },
)
