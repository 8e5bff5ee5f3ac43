import assert from 'node:assert/strict'
import { it } from 'node:test'
import {
  abortRollout,
  planRollout,
  type Effect,
  type NodeFact,
  type PlanOptions,
} from '#controller/rollout/index.ts'
import type { RolloutNodeRow, RolloutRow } from '#controller/store/index.ts'
import { reportOf } from '#test/heartbeat.ts'
import { fact, failed, kept, node, previous, R1, R2, ready, rollout } from '#test/rollout-rows.ts'

const NOW = 50_000
const OPTIONS: PlanOptions = { graceMs: 10_000, finalGraceMs: 1_500 }

interface NodeCase {
  readonly name: string
  readonly before?: Partial<RolloutNodeRow>
  readonly fact: NodeFact
  readonly after: RolloutNodeRow
}
const same = { node: 'a', sinceMs: NOW }
const nodeCases: readonly NodeCase[] = [
  { name: 'no command yet', fact: fact(), after: { node: 'a', state: 'pending', sinceMs: 40_000 } },
  {
    name: 'command made, not sent',
    fact: fact({ issuedGeneration: 5 }),
    after: { node: 'a', state: 'pending', sinceMs: 40_000, generation: 5 },
  },
  {
    name: 'an older command is on its way',
    fact: fact({ issuedGeneration: 5, sentGeneration: 4 }),
    after: { node: 'a', state: 'pending', sinceMs: 40_000, generation: 5 },
  },
  {
    name: 'command on its way',
    fact: fact({ issuedGeneration: 5, sentGeneration: 5 }),
    after: { ...same, state: 'sent', generation: 5 },
  },
  {
    name: 'kept, no report yet',
    fact: kept(),
    after: { ...same, state: 'applying', generation: 5 },
  },
  {
    name: 'the report speaks of the command before',
    fact: kept({ reportGeneration: 4, report: reportOf('sieve', R2) }),
    after: { ...same, state: 'applying', generation: 5 },
  },
  {
    name: 'the report speaks of the release before',
    fact: kept({ report: reportOf('sieve', R1) }),
    after: { ...same, state: 'applying', generation: 5 },
  },
  {
    name: 'half of the handlers serve',
    fact: kept({ report: reportOf('sieve', R2, { state: 'degraded' }) }),
    after: { ...same, state: 'applying', generation: 5 },
  },
  { name: 'ready', fact: ready, after: { ...same, state: 'ready', generation: 5 } },
  {
    name: 'a later command for another function does not undo ready',
    before: { state: 'ready', generation: 5 },
    fact: kept({ issuedGeneration: 6, sentGeneration: 6, report: reportOf('sieve', R2) }),
    after: { node: 'a', state: 'ready', sinceMs: 40_000, generation: 5 },
  },
  {
    name: 'a later command for another function does not hide ready',
    before: { generation: 5 },
    fact: kept({ issuedGeneration: 6, report: reportOf('sieve', R2) }),
    after: { ...same, state: 'ready', generation: 5 },
  },
  {
    name: 'ready, then offline: it has what it should have',
    before: { state: 'ready', generation: 5 },
    fact: kept({ presence: 'offline' }),
    after: { node: 'a', state: 'ready', sinceMs: 40_000, generation: 5 },
  },
  {
    name: 'offline',
    fact: fact({ presence: 'offline' }),
    after: { ...same, state: 'offline' },
  },
  {
    name: 'not heard yet since the controller started',
    fact: fact({ presence: 'unknown' }),
    after: { node: 'a', state: 'pending', sinceMs: 40_000 },
  },
  {
    name: 'refused by the node',
    fact: fact({
      issuedGeneration: 5,
      sentGeneration: 5,
      refusal: { code: 'COMMAND_EXPIRED', message: 'late' },
    }),
    after: {
      ...same,
      state: 'refused',
      reason: { code: 'COMMAND_EXPIRED', message: 'late' },
      generation: 5,
      troubleSinceMs: NOW,
    },
  },
  {
    name: 'a refusal of an earlier command does not count',
    fact: fact({
      issuedGeneration: 5,
      sentGeneration: 5,
      refusal: { code: 'COMMAND_REPLAYED', message: 'old', generation: 4 },
    }),
    after: { ...same, state: 'sent', generation: 5 },
  },
  {
    name: 'an old refusal does not count once the command is kept',
    fact: kept({ refusal: { code: 'COMMAND_EXPIRED', message: 'late' } }),
    after: { ...same, state: 'applying', generation: 5 },
  },
  {
    name: 'other architecture',
    fact: fact({ unfit: { code: 'ARCH_MISMATCH', message: 'arm64' } }),
    after: {
      ...same,
      state: 'refused',
      reason: { code: 'ARCH_MISMATCH', message: 'arm64' },
      troubleSinceMs: NOW,
    },
  },
  {
    name: 'failed',
    fact: failed('HANDLER_START'),
    after: {
      ...same,
      state: 'failed',
      reason: { code: 'HANDLER_START', message: 'no' },
      generation: 5,
      troubleSinceMs: NOW,
    },
  },
  {
    name: 'trying again after a failure: the trouble goes on',
    before: { state: 'failed', troubleSinceMs: 45_000, generation: 5 },
    fact: kept({ report: reportOf('sieve', R2, { state: 'starting', serving: [] }) }),
    after: { ...same, state: 'applying', generation: 5, troubleSinceMs: 45_000 },
  },
  {
    name: 'ready after a failure: the trouble is over',
    before: { state: 'failed', troubleSinceMs: 45_000, generation: 5 },
    fact: ready,
    after: { ...same, state: 'ready', generation: 5 },
  },
]
for (const one of nodeCases) {
  it(`a node: ${one.name} -> ${one.after.state}`, () => {
    const before = rollout([node('a', one.before), node('b')])
    const facts = new Map([
      ['a', one.fact],
      ['b', fact()],
    ])
    assert.deepEqual(planRollout(before, facts, NOW, OPTIONS).next.nodes[0], one.after)
  })
}

interface RolloutCase {
  readonly name: string
  readonly nodes: Readonly<Record<string, readonly [Partial<RolloutNodeRow>, NodeFact]>>
  readonly nowMs?: number
  readonly state: RolloutRow['state']
  readonly reason?: string
  readonly effects: readonly Effect[]
}
const offline = fact({ presence: 'offline' })
const rolloutCases: readonly RolloutCase[] = [
  {
    name: 'all ready: done, and the selector becomes the placement',
    nodes: { a: [{}, ready], b: [{}, ready] },
    state: 'done',
    effects: [{ kind: 'place' }],
  },
  {
    name: 'one pending: it is sent its command',
    nodes: { a: [{}, ready], b: [{}, fact()] },
    state: 'rolling',
    effects: [
      { kind: 'send', node: 'b' },
      { kind: 'wake', atMs: 100_000 },
    ],
  },
  {
    name: 'only offline nodes are missing',
    nodes: { a: [{}, ready], b: [{}, offline] },
    state: 'waiting',
    reason: 'offline: b',
    effects: [{ kind: 'wake', atMs: 100_000 }],
  },
  {
    name: 'an offline node does not hide that another is still at it',
    nodes: { a: [{}, kept()], b: [{}, offline] },
    state: 'rolling',
    effects: [{ kind: 'wake', atMs: 100_000 }],
  },
  {
    name: 'failed, within the grace',
    nodes: { a: [{}, failed('HANDLER_START')], b: [{}, ready] },
    state: 'rolling',
    effects: [{ kind: 'wake', atMs: NOW + OPTIONS.graceMs }],
  },
  {
    name: 'failed for a reason that stays, within its shorter grace',
    nodes: { a: [{}, failed('FUNCTION_LOAD')], b: [{}, ready] },
    state: 'rolling',
    effects: [{ kind: 'wake', atMs: NOW + OPTIONS.finalGraceMs }],
  },
  {
    name: 'failed for longer than the grace: all reasons are listed',
    nodes: {
      a: [{ state: 'failed', troubleSinceMs: 39_999 }, failed('HANDLER_START')],
      b: [{}, failed('FUNCTION_LOAD')],
      c: [{}, kept()],
    },
    state: 'failed',
    reason: 'a: HANDLER_START: no; b: FUNCTION_LOAD: no',
    effects: [],
  },
  {
    name: 'failed: nodes that are not ready go back to what they had, if anything',
    nodes: {
      a: [{ state: 'failed', troubleSinceMs: 1, previous }, failed('HANDLER_START')],
      b: [{ previous }, ready],
      c: [{ previous }, offline],
      d: [{}, offline],
    },
    state: 'failed',
    reason: 'a: HANDLER_START: no',
    effects: [
      {
        kind: 'return',
        nodes: [
          node('a', {
            state: 'failed',
            reason: { code: 'HANDLER_START', message: 'no' },
            previous,
            generation: 5,
            troubleSinceMs: 1,
          }),
          node('c', { state: 'offline', sinceMs: NOW, previous }),
        ],
      },
    ],
  },
  {
    name: 'failed beyond the grace but trying again just now: not yet',
    nodes: {
      a: [
        { state: 'failed', troubleSinceMs: 1 },
        kept({ report: reportOf('sieve', R2, { state: 'starting' }) }),
      ],
    },
    state: 'rolling',
    effects: [{ kind: 'wake', atMs: 100_000 }],
  },
  {
    name: 'a failure at the deadline is a failure, grace or not',
    nowMs: 100_000,
    nodes: { a: [{}, failed('HANDLER_START')], b: [{}, kept()] },
    state: 'failed',
    reason: 'a: HANDLER_START: no',
    effects: [],
  },
  {
    name: 'the deadline',
    nowMs: 100_000,
    nodes: { a: [{}, kept()], b: [{}, ready], c: [{}, offline] },
    state: 'timed-out',
    reason: 'not ready in time: a is applying; c',
    effects: [],
  },
  {
    name: 'the deadline, with only offline nodes missing: done, they get it when they return',
    nowMs: 100_000,
    nodes: { a: [{}, ready], b: [{}, offline] },
    state: 'done',
    reason: 'offline: b; they get it when they return',
    effects: [{ kind: 'place' }],
  },
  {
    name: 'the deadline, with every node offline',
    nowMs: 100_000,
    nodes: { a: [{}, offline] },
    state: 'timed-out',
    reason: 'offline: a; they get it when they return',
    effects: [],
  },
  {
    name: 'a deleted node no longer counts',
    nodes: { a: [{}, ready], b: [{}, fact({ enrolled: false })] },
    state: 'done',
    effects: [{ kind: 'place' }],
  },
  {
    name: 'all nodes deleted',
    nodes: { a: [{}, fact({ enrolled: false })] },
    state: 'aborted',
    reason: 'all its nodes were deleted',
    effects: [],
  },
]
for (const one of rolloutCases) {
  it(`a rollout: ${one.name} -> ${one.state}`, () => {
    const entries = Object.entries(one.nodes)
    const before = rollout(entries.map(([name, [row]]) => node(name, row)))
    const facts = new Map(entries.map(([name, [, seen]]) => [name, seen]))
    const nowMs = one.nowMs ?? NOW
    const { next, effects } = planRollout(before, facts, nowMs, OPTIONS)
    const ended = !['rolling', 'waiting'].includes(one.state)
    assert.deepEqual(
      { state: next.state, reason: next.reason, endedAtMs: next.endedAtMs },
      { state: one.state, reason: one.reason, endedAtMs: ended ? nowMs : undefined },
    )
    assert.deepEqual(effects, one.effects)
  })
}

it('many reasons are cut to the first five', () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g']
  const before = rollout(names.map((name) => node(name, { state: 'failed', troubleSinceMs: 1 })))
  const facts = new Map(names.map((name) => [name, failed('HANDLER_START')]))
  const { next } = planRollout(before, facts, NOW, OPTIONS)
  assert.match(next.reason ?? '', /e: HANDLER_START: no; and 2 more$/)
})

it('a rollout that has ended stays as it is, whatever the fleet says', () => {
  for (const state of ['done', 'failed', 'aborted', 'timed-out'] as const) {
    const before = rollout([node('a')], { state, reason: 'once', endedAtMs: 7 })
    assert.deepEqual(planRollout(before, new Map([['a', ready]]), NOW), {
      next: before,
      effects: [],
    })
    assert.deepEqual(abortRollout(before, new Map(), 'again', NOW), { next: before, effects: [] })
  }
})

it('abort gives nodes back what they had, except those that it has reached', () => {
  const nodes = [
    node('pending', { previous }),
    node('offline', { state: 'offline' }),
    node('sent', { state: 'sent', generation: 5, previous }),
    node('accepted', { state: 'sent', generation: 5, previous }),
    node('applying', { state: 'applying', generation: 5, previous }),
    node('ready', { state: 'ready', generation: 5, previous }),
    node('reported', { state: 'offline', previous }),
  ]
  const facts = new Map([
    ['pending', fact()],
    ['offline', offline],
    ['sent', fact({ issuedGeneration: 5, sentGeneration: 5, acceptedGeneration: 4 })],
    ['accepted', kept()],
    ['applying', kept()],
    ['ready', ready],
    ['reported', fact({ report: reportOf('sieve', R2) })],
  ])
  const { next, effects } = abortRollout(rollout(nodes), facts, 'by request', NOW)
  assert.deepEqual([next.state, next.reason, next.endedAtMs], ['aborted', 'by request', NOW])
  assert.deepEqual(effects, [{ kind: 'return', nodes: nodes.slice(0, 3) }])
})
