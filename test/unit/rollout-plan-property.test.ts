import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { isOpen, planRollout, type NodeFact } from '#controller/rollout/index.ts'
import type { RolloutRow } from '#controller/store/index.ts'
import { reportOf } from '#test/heartbeat.ts'
import { settingsOf } from '#test/settings.ts'

const R2 = 'r2-22222222'
const DEADLINE = 60_000
const GENERATION = 3
const NAMES = ['a', 'b', 'c'] as const

// Few values on purpose: the hard cases are combinations.
const presence = fc.constantFrom<NodeFact['presence']>('online', 'offline', 'unknown')
const report = fc
  .record({
    state: fc.constantFrom<'ready' | 'failed' | 'starting'>('ready', 'failed', 'starting'),
    release: fc.constantFrom(R2, R2, 'r1-11111111'),
  })
  .map(({ state, release }) => reportOf('sieve', release, { state }))
const parts = {
  enrolled: fc.boolean().chain((gone) => (gone ? fc.boolean() : fc.constant(true))),
  presence,
  sentGeneration: fc.constantFrom(0, GENERATION),
  acceptedGeneration: fc.constantFrom(GENERATION - 1, GENERATION),
  reportGeneration: fc.constantFrom(GENERATION - 1, GENERATION),
  issuedGeneration: fc.constant(GENERATION),
  refusal: fc
    .constantFrom('COMMAND_EXPIRED', 'NODE_TIMEOUT')
    .map((code) => ({ code, message: 'no' })),
  report,
}
const unfit = fc.constant({ code: 'ARCH_MISMATCH', message: 'arm64' })
const requiredKeys = [
  'enrolled',
  'presence',
  'sentGeneration',
  'acceptedGeneration',
  'reportGeneration',
] as const
const fact: fc.Arbitrary<NodeFact> = fc.oneof(
  { weight: 9, arbitrary: fc.record(parts, { requiredKeys: [...requiredKeys] }) },
  {
    weight: 1,
    arbitrary: fc.record({ ...parts, unfit }, { requiredKeys: [...requiredKeys, 'unfit'] }),
  },
)
const fleet = fc.record({ a: fact, b: fact, c: fact })
/** What the fleet looks like, and how long until the next look. */
const history = fc.array(fc.record({ fleet, afterMs: fc.integer({ min: 0, max: 20_000 }) }), {
  minLength: 1,
  maxLength: 12,
})

const begin: RolloutRow = {
  id: 'ro',
  function: 'sieve',
  release: R2,
  selector: '*',
  settings: settingsOf(),
  state: 'rolling',
  createdAtMs: 0,
  deadlineAtMs: DEADLINE,
  nodes: NAMES.map((node) => ({ node, state: 'pending', sinceMs: 0 })),
}

/** Plans through a history; `look` sees each step. */
function play(
  steps: readonly { fleet: Record<string, NodeFact>; afterMs: number }[],
  look: (
    before: RolloutRow,
    next: RolloutRow,
    facts: ReadonlyMap<string, NodeFact>,
    nowMs: number,
  ) => void,
): RolloutRow {
  let rollout = begin
  let nowMs = 0
  const gone = new Set<string>()
  const last = steps.at(-1)
  assert.ok(last)
  // The last look is at the deadline at the latest.
  for (const { fleet: seen, afterMs } of [...steps, { ...last, afterMs: DEADLINE }]) {
    nowMs += afterMs
    const facts = new Map(Object.entries(seen))
    // A node that was deleted stays away.
    for (const name of NAMES) {
      const here = facts.get(name)
      if (here?.enrolled === false) gone.add(name)
      if (here !== undefined && gone.has(name)) facts.set(name, { ...here, enrolled: false })
    }
    const { next } = planRollout(rollout, facts, nowMs)
    look(rollout, next, facts, nowMs)
    rollout = next
  }
  return rollout
}

it('every rollout has ended by its deadline, with a reason unless it is done', () => {
  fc.assert(
    fc.property(history, (steps) => {
      const end = play(steps, (_before, next, _facts, nowMs) => {
        if (nowMs >= DEADLINE) assert.ok(!isOpen(next.state))
      })
      assert.ok(!isOpen(end.state))
      assert.ok(end.state === 'done' || (end.reason ?? '') !== '')
      assert.ok(end.endedAtMs !== undefined)
    }),
    { numRuns: 2_000 },
  )
})

it('done only when every selected node that is online and enrolled is ready', () => {
  let done = 0
  fc.assert(
    fc.property(history, (steps) => {
      play(steps, (before, next, facts) => {
        if (!isOpen(before.state) || next.state !== 'done') return
        done += 1
        for (const node of NAMES) {
          const seen = facts.get(node)
          if (seen?.enrolled !== true || seen.presence !== 'online') continue
          assert.equal(next.nodes.find((row) => row.node === node)?.state, 'ready')
        }
      })
    }),
    { numRuns: 5_000 },
  )
  assert.ok(done > 20, `only ${done} of the histories ended in done`)
})

it('waiting only when every node that is missing is offline', () => {
  let waiting = 0
  fc.assert(
    fc.property(history, (steps) => {
      play(steps, (_before, next, facts) => {
        if (next.state !== 'waiting') return
        waiting += 1
        for (const { node, state } of next.nodes) {
          if (state !== 'ready') assert.equal(facts.get(node)?.presence, 'offline')
        }
      })
    }),
    { numRuns: 5_000 },
  )
  assert.ok(waiting > 20, `only ${waiting} looks were at a waiting rollout`)
})

it('planning twice at the same moment changes nothing the second time', () => {
  fc.assert(
    fc.property(history, (steps) => {
      play(steps, (_before, next, facts, nowMs) => {
        assert.deepEqual(planRollout(next, facts, nowMs).next, next)
      })
    }),
    { numRuns: 2_000 },
  )
})
