import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import {
  fitMemory,
  plan,
  type ActualFunction,
  type ActualHandler,
  type Desired,
  type Step,
} from '#agent/reconcile/index.ts'

function want(fn: string, replicas: number, changes: Partial<Desired> = {}): Desired {
  const kinds = { memoryMiB: 100, sleeps: true, keeps: true, routing: 'r' }
  return { fn, spec: 'new', replicas, replicasMin: 1, ...kinds, ...changes }
}

function have(fn: string, ...handlers: readonly ActualHandler[]): ActualFunction {
  return { fn, handlers, bundle: 'present', routing: 'r', failures: 0, retryAtMs: 0 }
}

function handler(
  id: string,
  phase: ActualHandler['phase'],
  changes: Partial<ActualHandler> = {},
): ActualHandler {
  return { id, spec: 'new', phase, proven: true, memoryMiB: 100, ...changes }
}

const suspect = (id: string): ActualHandler => handler(id, 'serving', { suspect: 'overrun' })

interface Row {
  readonly name: string
  readonly desired: readonly Desired[]
  readonly functions: readonly ActualFunction[]
  readonly budgetMiB: number
  readonly replicas: readonly number[]
  readonly giveUp?: readonly string[]
  readonly sparesMiB?: number
  readonly limited?: readonly string[]
}

const kept = (id: string, pausedUntilMs: number): ActualHandler =>
  handler(id, 'paused', { spec: 'old', pausedUntilMs })

const ROWS: readonly Row[] = [
  {
    name: 'there is room: nothing is cut, the rest is for spares',
    desired: [want('a', 3)],
    functions: [have('a', handler('a1', 'serving'), kept('k', 1))],
    budgetMiB: 1_000,
    replicas: [3],
    sparesMiB: 600,
  },
  {
    name: 'spares go before paused handlers do',
    desired: [want('a', 2)],
    functions: [have('a', handler('a1', 'serving'), kept('k', 1))],
    budgetMiB: 300,
    replicas: [2],
    sparesMiB: 0,
  },
  {
    name: 'paused handlers go before replicas do, the one that was paused first first',
    desired: [want('a', 3)],
    functions: [have('a', handler('a1', 'serving'), kept('later', 2), kept('sooner', 1))],
    budgetMiB: 400,
    replicas: [3],
    giveUp: ['sooner'],
  },
  {
    name: 'replicas beyond the minimum are not started above the budget',
    desired: [want('a', 4), want('b', 1)],
    functions: [have('a', handler('a1', 'serving'))],
    budgetMiB: 300,
    replicas: [2, 1],
    limited: ['a'],
  },
  {
    name: 'the minimum is started even above the budget',
    desired: [want('a', 3, { replicasMin: 2 })],
    functions: [],
    budgetMiB: 50,
    replicas: [2],
    limited: ['a'],
  },
  {
    name: 'a paused handler that is about to be resumed is not given up, and needs no more memory',
    desired: [want('a', 1, { replicasMin: 0 })],
    functions: [have('a', handler('p', 'paused', { pausedUntilMs: 1 }))],
    budgetMiB: 50,
    replicas: [1],
  },
  {
    name: 'what runs beyond the budget goes on',
    desired: [want('a', 3)],
    functions: [have('a', ...['x', 'y', 'z'].map((id) => handler(id, 'serving')))],
    budgetMiB: 100,
    replicas: [3],
  },
  {
    name: 'handlers under suspicion go before others take their place, when there is no room for both',
    desired: [want('a', 3)],
    functions: [have('a', handler('sound', 'serving'), suspect('b'), suspect('c'))],
    budgetMiB: 300,
    replicas: [1],
    limited: ['a'],
  },
  {
    name: 'the last one is replaced even above the budget',
    desired: [want('a', 1)],
    functions: [have('a', suspect('last'))],
    budgetMiB: 100,
    replicas: [1],
  },
  {
    name: 'one that comes back as soon as it is paused needs no more memory',
    desired: [want('a', 1, { replicasMin: 0 }), want('b', 0, { replicasMin: 0 })],
    functions: [have('a', handler('p', 'pausing')), have('b', kept('k', 1))],
    budgetMiB: 200,
    replicas: [1, 0],
  },
]

let ids = 0

/** As a node would do, with an engine that does as it is told: drained after a while, all else after a round. */
function advance(handlers: readonly ActualHandler[], steps: readonly Step[]): ActualHandler[] {
  const told = new Map(steps.flatMap((step) => ('id' in step ? [[step.id, step.kind]] : [])))
  const starts = steps.filter(({ kind }) => kind === 'start')
  const made = starts.map(() => handler(`new${(ids += 1)}`, 'starting'))
  const there = handlers.flatMap((one) => {
    const phase = PHASES[told.get(one.id) ?? one.phase] ?? one.phase
    return one.phase === 'stopping' ? [] : [{ ...one, phase }]
  })
  return [...there, ...made]
}

const PHASES: { readonly [K in string]?: ActualHandler['phase'] } = {
  starting: 'ready',
  attach: 'serving',
  drain: 'draining',
  draining: 'drained',
  stop: 'stopping',
}

describe('handlers that all overran', () => {
  for (const count of [8, 1]) {
    it(`${count} of ${count} are replaced with one more than the budget has room for`, () => {
      let handlers = Array.from({ length: count }, (_, n) => suspect(`old${n}`))
      let mostMiB = 0
      for (let round = 0; round < 30; round += 1) {
        const functions = [have('f', ...handlers)]
        const { desired, giveUp } = fitMemory([want('f', count)], functions, count * 100)
        const actual = { engine: 'present', functions, orphans: [], giveUp } as const
        handlers = advance(handlers, plan(desired, actual, 0))
        mostMiB = Math.max(mostMiB, handlers.length * 100)
        assert.ok(handlers.some(({ phase }) => phase === 'serving'))
      }
      assert.equal(mostMiB, count * 100 + 100)
      assert.deepEqual(
        handlers.map((one) => [one.phase, one.suspect]),
        Array.from({ length: count }, () => ['serving', undefined]),
      )
    })
  }
})

describe('fitMemory', () => {
  for (const row of ROWS) {
    it(row.name, () => {
      const { desired, giveUp, limited, sparesMiB } = fitMemory(
        row.desired,
        row.functions,
        row.budgetMiB,
      )
      const { replicas, giveUp: gone = [], limited: cut = [] } = row
      assert.deepEqual(
        { replicas: desired.map((one) => one.replicas), gone: [...giveUp], cut: [...limited] },
        { replicas, gone, cut },
      )
      assert.equal(sparesMiB, row.sparesMiB ?? 0)
    })
  }

  it('never plans beyond the budget but for minimums and what is there already', () => {
    let cut = 0
    const wishes = fc.array(
      fc.record({
        replicas: fc.integer({ min: 0, max: 8 }),
        replicasMin: fc.integer({ min: 0, max: 3 }),
        running: fc.integer({ min: 0, max: 4 }),
        paused: fc.integer({ min: 0, max: 2 }),
        memoryMiB: fc.constantFrom(16, 100, 333),
      }),
      { maxLength: 6 },
    )
    fc.assert(
      fc.property(wishes, fc.integer({ min: 0, max: 3_000 }), (list, budgetMiB) => {
        const desired = list.map(({ replicas, replicasMin, memoryMiB }, n) =>
          want(`f${n}`, replicas, { replicasMin, memoryMiB }),
        )
        const functions = list.map(({ running, paused, memoryMiB }, n) => {
          const make = (
            count: number,
            phase: 'serving' | 'paused',
            spec: string,
          ): ActualHandler[] =>
            Array.from({ length: count }, (_, id) =>
              handler(`${n}-${phase}-${id}`, phase, { memoryMiB, spec, pausedUntilMs: id }),
            )
          return have(`f${n}`, ...make(running, 'serving', 'new'), ...make(paused, 'paused', 'old'))
        })
        const fit = fitMemory(desired, functions, budgetMiB)
        const given = new Map(fit.desired.map((one) => [one.fn, one]))
        let usedMiB = 0
        let mustMiB = 0
        for (const [n, one] of list.entries()) {
          const granted = given.get(`f${n}`)?.replicas ?? -1
          const least = Math.min(one.replicas, Math.max(1, one.replicasMin))
          assert.ok(
            granted <= one.replicas &&
              granted >= Math.min(one.replicas, Math.max(least, one.running)),
          )
          assert.equal(fit.limited.has(`f${n}`), granted < one.replicas)
          const stays = functions[n]?.handlers.filter(
            ({ id, phase }) => phase === 'paused' && !fit.giveUp.has(id),
          )
          usedMiB += (Math.max(granted, one.running) + (stays?.length ?? 0)) * one.memoryMiB
          mustMiB += Math.max(least, one.running) * one.memoryMiB
        }
        cut += fit.limited.size
        const others = usedMiB + fit.sparesMiB
        // Beyond it only with what must be; paused ones stay only as long as nobody is cut.
        if (others > budgetMiB)
          assert.ok(fit.limited.size > 0 || usedMiB === mustMiB || fit.giveUp.size === 0)
        if (fit.limited.size > 0)
          assert.ok(
            functions.every(({ handlers }) =>
              handlers.every(({ id, phase }) => phase !== 'paused' || fit.giveUp.has(id)),
            ),
          )
      }),
    )
    assert.ok(cut > 0)
  })
})
