import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { plan } from '#agent/reconcile/index.ts'
import {
  drained,
  handler,
  have,
  node,
  NOW_MS,
  text,
  want,
  type PlanRow,
} from '#test/plan-builders.ts'

const old = { spec: 'old', proven: true } as const
const sleeper = { sleeps: true, replicasMin: 0 } as const
const keeper = { keeps: true } as const
const later = { pausedUntilMs: NOW_MS + 1 } as const

const SLEEP_ROWS: readonly PlanRow[] = [
  {
    name: 'a function that goes to sleep: its handlers are drained at once',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([handler('a', 'serving'), handler('b', 'starting')])]),
    steps: ['drain a idle', 'stop b idle'],
  },
  {
    name: 'of the drained handlers of a function that sleeps, one is paused and the others are removed',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([drained('a'), drained('b')])]),
    steps: ['pause a idle', 'stop b drained'],
  },
  {
    name: 'while one is being paused, no other is',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([handler('a', 'pausing', { proven: true }), drained('b')])]),
    steps: ['stop b drained'],
  },
  {
    name: 'asleep: nothing to do',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([handler('a', 'paused', later)])]),
    steps: [],
  },
  {
    name: 'asleep with nothing paused, not even a bundle: nothing to do',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([], { bundle: 'absent' })]),
    steps: [],
  },
  {
    name: 'paused for long: removed',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([handler('a', 'paused', { pausedUntilMs: NOW_MS })])]),
    steps: ['stop a expired'],
  },
  {
    name: 'woken: the paused handler is resumed, and only what is missing besides is started',
    desired: [want({ ...sleeper, replicas: 2 })],
    actual: node([have([handler('a', 'paused', later)])]),
    steps: ['resume a missing', 'start missing'],
  },
  {
    name: 'woken when its paused handler has gone: one is started',
    desired: [want({ ...sleeper })],
    actual: node([have([])]),
    steps: ['start missing'],
  },
  {
    name: 'woken in the moment between draining and pausing: it takes calls again',
    desired: [want({ ...sleeper })],
    actual: node([have([drained('a')])]),
    steps: ['resume a missing'],
  },
  {
    name: 'woken while it is being paused: that is waited for, a start would take longer',
    desired: [want({ ...sleeper })],
    actual: node([have([handler('a', 'pausing', { proven: true })])]),
    steps: [],
  },
  {
    name: 'a drained handler whose link is not sound is not used again',
    desired: [want()],
    actual: node([have([handler('a', 'drained', { proven: true })])]),
    steps: ['stop a drained', 'start missing'],
  },
  {
    name: 'a handler that overran is never paused',
    desired: [want({ ...sleeper, replicas: 0 })],
    actual: node([have([drained('a', { suspect: 'overrun' })])]),
    steps: ['stop a drained'],
  },
  {
    name: 'a lost engine: nothing is paused or resumed',
    desired: [want({ ...sleeper })],
    actual: node([have([handler('a', 'paused', later), drained('b', old)])], { engine: 'lost' }),
    steps: [],
  },
]

const KEEP_ROWS: readonly PlanRow[] = [
  {
    name: 'a replaced handler is kept, paused',
    desired: [want(keeper)],
    actual: node([have([drained('a', old), drained('b', old), handler('c', 'serving')])]),
    steps: ['pause a kept', 'stop b drained'],
  },
  {
    name: 'the newer of two replaced releases is the one that is kept',
    desired: [want(keeper)],
    actual: node([
      have([
        handler('a', 'paused', { spec: 'older', ...later }),
        drained('b', old),
        handler('c', 'serving'),
      ]),
    ]),
    steps: ['pause b kept', 'stop a superseded'],
  },
  {
    name: 'kept for its time: removed',
    desired: [want(keeper)],
    actual: node([
      have([handler('a', 'paused', { ...old, pausedUntilMs: NOW_MS }), handler('c', 'serving')]),
    ]),
    steps: ['stop a expired'],
  },
  {
    name: 'its memory is needed: removed',
    desired: [want(keeper)],
    actual: node([have([handler('a', 'paused', { ...old, ...later }), handler('c', 'serving')])], {
      giveUp: new Set(['a']),
    }),
    steps: ['stop a memory'],
  },
  {
    name: 'undo: the kept handler is resumed beside the newer one',
    desired: [want(keeper)],
    actual: node([have([handler('a', 'paused', later), handler('b', 'serving', old)])]),
    steps: ['resume a outdated'],
  },
  {
    name: 'undo, resumed: it takes the calls',
    desired: [want(keeper)],
    actual: node([have([handler('a', 'ready', { proven: true }), handler('b', 'serving', old)])]),
    steps: ['attach a ready'],
  },
  {
    name: 'a kept handler that died is removed, and nothing else happens',
    desired: [want(keeper)],
    actual: node([have([handler('a', 'dead', old), handler('c', 'serving')])]),
    steps: ['stop a dead'],
  },
  {
    name: 'an unwanted function keeps nothing',
    desired: [],
    actual: node([have([handler('a', 'paused', later)], { routing: undefined })]),
    steps: ['stop a unwanted'],
  },
]

const fallback = { fallback: { spec: 'old', retryAtMs: NOW_MS } } as const
const failing = { failures: 2, retryAtMs: NOW_MS + 5 } as const

const FALLBACK_ROWS: readonly PlanRow[] = [
  {
    name: 'the wanted release fails and nothing serves: the one before is started again',
    desired: [want(fallback)],
    actual: node([have([], failing)]),
    steps: ['start fallback'],
  },
  {
    name: 'a paused handler of the release before is resumed for that',
    desired: [want(fallback)],
    actual: node([have([handler('a', 'paused', { ...old, ...later })], failing)]),
    steps: ['resume a fallback'],
  },
  {
    name: 'the release before serves: enough',
    desired: [want(fallback)],
    actual: node([have([handler('a', 'serving', old)], failing)]),
    steps: [],
  },
  {
    name: 'the release before is on its way: it is waited for',
    desired: [want(fallback)],
    actual: node([have([handler('a', 'starting', old)], failing)]),
    steps: [],
  },
  {
    name: 'the release before failed as well: not before its time',
    desired: [want({ fallback: { spec: 'old', retryAtMs: NOW_MS + 1 } })],
    actual: node([have([], failing)]),
    steps: [],
  },
  {
    name: 'the wanted release has not failed: it is waited for',
    desired: [want(fallback)],
    actual: node([have([handler('a', 'starting')])]),
    steps: [],
  },
]

const FRESH_ROWS: readonly PlanRow[] = [
  {
    name: 'a handler that has its one call is drained, and another one made ready',
    desired: [want()],
    actual: node([have([handler('a', 'serving', { spent: true })])]),
    steps: ['start missing', 'drain a used'],
  },
  {
    name: 'a handler whose one call does not end is removed, whatever time it could have still',
    desired: [want()],
    actual: node([
      have([
        handler('a', 'draining', { spent: true, suspect: 'overrun' }),
        handler('b', 'draining', { suspect: 'blocked' }),
        handler('c', 'draining', { suspect: 'overrun' }),
        handler('d', 'serving'),
      ]),
    ]),
    steps: ['stop a used', 'stop b blocked'],
  },
  {
    name: 'a handler that has had its call is removed, not kept',
    desired: [want({ ...sleeper, ...keeper, replicas: 0 })],
    actual: node([
      have([drained('a', { spent: true }), drained('b', { spent: true, spec: 'old' })]),
    ]),
    steps: ['stop a drained', 'stop b drained'],
  },
  {
    name: 'a found handler that may have had its call is not adopted',
    desired: [want()],
    actual: node([have([handler('a', 'found', { spent: true })])]),
    steps: ['start missing', 'stop a used'],
  },
]

describe('plan, of what rests', () => {
  for (const row of [...SLEEP_ROWS, ...KEEP_ROWS, ...FALLBACK_ROWS, ...FRESH_ROWS]) {
    it(row.name, () => {
      assert.deepEqual(plan(row.desired, row.actual, NOW_MS).map(text), row.steps)
    })
  }
})
