import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { plan } from '#agent/reconcile/index.ts'
import { handler, have, node, NOW_MS, text, want, type PlanRow } from '#test/plan-builders.ts'

const old = { spec: 'old', proven: true } as const

const ROWS: readonly PlanRow[] = [
  {
    name: 'nothing wanted, nothing there: nothing to do',
    desired: [],
    actual: node([]),
    steps: [],
  },
  {
    name: 'a new function is made known and fetched at once',
    desired: [want()],
    actual: node([]),
    steps: ['route new', 'fetch missing'],
  },
  {
    name: 'while it is fetched there is nothing to do',
    desired: [want()],
    actual: node([have([], { bundle: 'fetching' })]),
    steps: [],
  },
  {
    name: 'all replicas start together',
    desired: [want({ replicas: 3 })],
    actual: node([have([handler('a', 'starting')])]),
    steps: ['start missing', 'start missing'],
  },
  {
    name: 'what is ready is opened for calls',
    desired: [want()],
    actual: node([have([handler('a', 'ready')])]),
    steps: ['attach a ready'],
  },
  {
    name: 'converged: nothing to do',
    desired: [want({ replicas: 2 })],
    actual: node([have([handler('a', 'serving'), handler('b', 'serving')])]),
    steps: [],
  },
  {
    name: 'other lane settings: the lane gets them, handlers stay',
    desired: [want({ routing: 'other' })],
    actual: node([have([handler('a', 'serving')])]),
    steps: ['route settings'],
  },
  {
    name: 'a new release starts beside the old one, which keeps serving',
    desired: [want()],
    actual: node([have([handler('a', 'serving', old)])]),
    steps: ['start outdated'],
  },
  {
    name: 'the old one stays until all replicas of the new one serve',
    desired: [want({ replicas: 2 })],
    actual: node([
      have([handler('a', 'serving', old), handler('b', 'serving'), handler('c', 'ready')]),
    ]),
    steps: ['attach c ready'],
  },
  {
    name: 'the old one is drained when the new one serves',
    desired: [want()],
    actual: node([have([handler('a', 'serving', old), handler('b', 'serving')])]),
    steps: ['drain a outdated'],
  },
  {
    name: 'a start that has been superseded is given up at once, the serving one is not',
    desired: [want()],
    actual: node([
      have([handler('a', 'serving', old), handler('b', 'starting', { spec: 'middle' })]),
    ]),
    steps: ['start outdated', 'stop b outdated'],
  },
  {
    name: 'a drained handler is removed, a draining one is left alone',
    desired: [want()],
    actual: node([
      have([
        handler('a', 'drained', old),
        handler('b', 'draining', old),
        handler('c', 'stopping', old),
        handler('d', 'serving'),
      ]),
    ]),
    steps: ['stop a drained'],
  },
  {
    name: 'of very many handlers that drain, the oldest are stopped',
    desired: [want()],
    actual: node([
      have([
        handler('a', 'draining', old),
        handler('b', 'draining', old),
        handler('c', 'serving'),
        ...Array.from({ length: 64 }, (_, at) => handler(`d${at}`, 'draining', old)),
      ]),
    ]),
    steps: ['stop a crowded', 'stop b crowded'],
  },
  {
    name: 'a dead handler is removed and another started',
    desired: [want()],
    actual: node([have([handler('a', 'dead')])]),
    steps: ['stop a dead', 'start missing'],
  },
  {
    name: 'after a failure nothing is started before its time',
    desired: [want()],
    actual: node([have([], { failures: 2, retryAtMs: NOW_MS + 1 })]),
    steps: [],
  },
  {
    name: 'after a failure one is tried, however many are wanted',
    desired: [want({ replicas: 3 })],
    actual: node([have([], { failures: 2, retryAtMs: NOW_MS })]),
    steps: ['start missing'],
  },
  {
    name: 'after a failure the one that is tried is waited for',
    desired: [want({ replicas: 3 })],
    actual: node([have([handler('a', 'starting')], { failures: 2 })]),
    steps: [],
  },
  {
    name: 'a fetch that failed is not repeated before its time either',
    desired: [want()],
    actual: node([have([], { bundle: 'absent', failures: 3, retryAtMs: NOW_MS + 5 })]),
    steps: [],
  },
  {
    name: 'an overrun handler serves until its replacement does',
    desired: [want()],
    actual: node([have([handler('a', 'serving', { suspect: 'overrun' })])]),
    steps: ['start overrun'],
  },
  {
    name: 'an overrun handler goes when its replacement serves',
    desired: [want()],
    actual: node([
      have([handler('a', 'serving', { suspect: 'overrun' }), handler('b', 'serving')]),
    ]),
    steps: ['drain a overrun'],
  },
  {
    name: 'a blocked handler goes at once',
    desired: [want()],
    actual: node([have([handler('a', 'serving', { suspect: 'blocked' })])]),
    steps: ['start blocked', 'drain a blocked'],
  },
  {
    name: 'fewer replicas: those not serving yet go first',
    desired: [want({ replicas: 1 })],
    actual: node([
      have([handler('a', 'starting'), handler('b', 'serving'), handler('c', 'ready')]),
    ]),
    steps: ['stop a surplus', 'stop c surplus'],
  },
  {
    name: 'found handlers are adopted, also outdated ones, and new ones start beside those',
    desired: [want()],
    actual: node([have([handler('a', 'found', old)])]),
    steps: ['start outdated', 'adopt a found'],
  },
  {
    name: 'a found handler that fits is all there is to do',
    desired: [want()],
    actual: node([have([handler('a', 'found')], { bundle: 'absent' })]),
    steps: ['adopt a found'],
  },
  {
    name: 'found handlers beyond what is wanted are not adopted',
    desired: [want()],
    actual: node([have([handler('a', 'found'), handler('b', 'found')])]),
    steps: ['adopt a found', 'stop b surplus'],
  },
  {
    name: 'an adopted old release serves until the new one does',
    desired: [want()],
    actual: node([have([handler('a', 'ready', old), handler('b', 'starting')])]),
    steps: ['attach a ready'],
  },
  {
    name: 'an unwanted function is unknown to callers first, then drained and removed',
    desired: [],
    actual: node([
      have([handler('a', 'serving'), handler('b', 'starting'), handler('c', 'found')]),
    ]),
    steps: ['unroute unwanted', 'drain a unwanted', 'stop b unwanted', 'stop c unwanted'],
  },
  {
    name: 'an unwanted function is forgotten when nothing of it is left',
    desired: [],
    actual: node([have([], { routing: undefined })]),
    steps: ['forget unwanted'],
  },
  {
    name: 'a function that cannot be had here: what runs stays, nothing starts',
    desired: [want({ spec: undefined })],
    actual: node([have([handler('a', 'serving', old), handler('b', 'found', old)])]),
    steps: ['adopt b found'],
  },
  {
    name: 'a lost engine: lanes and links go on, nothing that needs it is planned',
    desired: [want({ routing: 'other' })],
    actual: node([have([handler('a', 'dead'), handler('b', 'ready')])], {
      engine: 'lost',
      orphans: [{ id: 'x' }],
    }),
    steps: ['route settings', 'attach b ready'],
  },
  {
    name: 'a handler that could not be removed is tried again at its time',
    desired: [],
    actual: node([
      have(
        [
          handler('a', 'drained', { retryAtMs: NOW_MS + 1 }),
          handler('b', 'drained', { retryAtMs: NOW_MS }),
        ],
        {
          routing: undefined,
        },
      ),
    ]),
    steps: ['stop b drained'],
  },
  {
    name: 'orphans are removed',
    desired: [],
    actual: node([], { orphans: [{ id: 'x' }, { id: 'y' }] }),
    steps: ['remove-orphan x unknown', 'remove-orphan y unknown'],
  },
]

describe('plan', () => {
  for (const row of ROWS) {
    it(row.name, () => {
      assert.deepEqual(plan(row.desired, row.actual, NOW_MS).map(text), row.steps)
    })
  }

  it('plans functions by name, whatever order they come in', () => {
    const desired = ['b', 'c', 'a'].map((fn) => want({ fn }))
    const names = plan(desired, node([]), NOW_MS).map((step) => ('fn' in step ? step.fn : ''))
    assert.deepEqual([...new Set(names)], ['a', 'b', 'c'])
  })
})
