import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import {
  ASLEEP,
  QUIET_MS,
  rescale,
  rescaleDueAtMs,
  scaleOf,
  type Demand,
  type Level,
  type Scale,
} from '#agent/reconcile/index.ts'
import type { FunctionSettings } from '#shared/schemas/command.ts'
import { SETTINGS } from '#test/reconcile-scope.ts'

const NOW = 100_000

function scale(changes: Partial<Scale> = {}): Scale {
  const base = { min: 1, max: 4, perHandler: 10, idleMs: 0, removeMs: 1_000, fresh: false }
  return { ...base, ...changes }
}

function demand(calls: number, changes: Partial<Demand> = {}): Demand {
  return { calls, peak: calls, used: 0, lastCallAtMs: 0, maySleep: true, ...changes }
}

function level(count: number, changes: Partial<Level> = {}): Level {
  return { count, awakeSinceMs: 0, ...changes }
}

interface Row {
  readonly name: string
  readonly before: Level
  readonly scale?: Partial<Scale>
  readonly demand: Demand
  readonly after: Level
}

const sleeper = { min: 0, idleMs: 1_000 } as const

const ROWS: readonly Row[] = [
  {
    name: 'a function begins with its minimum',
    before: ASLEEP,
    scale: { min: 2 },
    demand: demand(0),
    after: { count: 2, awakeSinceMs: NOW },
  },
  {
    name: 'calls that fit change nothing',
    before: level(2),
    demand: demand(20),
    after: level(2),
  },
  {
    name: 'a call more than fits: one handler more, at once',
    before: level(2),
    demand: demand(21),
    after: level(3),
  },
  {
    name: 'never above the maximum',
    before: level(2),
    demand: demand(1_000),
    after: level(4),
  },
  {
    name: 'fewer calls: noticed, and nothing taken away yet',
    before: level(3),
    demand: demand(5),
    after: level(3, { low: { sinceMs: NOW, most: 1 } }),
  },
  {
    name: 'a peak since the last look counts, though it is over',
    before: level(3),
    demand: demand(0, { peak: 25 }),
    after: level(3),
  },
  {
    name: 'fewer calls for long: down to the most that was needed meanwhile',
    before: level(4, { low: { sinceMs: NOW - QUIET_MS, most: 2 } }),
    demand: demand(1),
    after: level(2),
  },
  {
    name: 'many calls again: what was noticed is forgotten',
    before: level(3, { low: { sinceMs: NOW - 10, most: 1 } }),
    demand: demand(30),
    after: level(3),
  },
  {
    name: 'a smaller maximum holds at once',
    before: level(4),
    scale: { max: 2 },
    demand: demand(40),
    after: level(2),
  },
  {
    name: 'idle for its time: asleep',
    before: level(1),
    scale: sleeper,
    demand: demand(0, { lastCallAtMs: NOW - 1_000 }),
    after: level(0),
  },
  {
    name: 'idle, but not for long enough',
    before: level(1),
    scale: sleeper,
    demand: demand(0, { lastCallAtMs: NOW - 999 }),
    after: level(1),
  },
  {
    name: 'just woken by a caller who has gone: it stays awake for its time',
    before: level(1, { awakeSinceMs: NOW - 1 }),
    scale: sleeper,
    demand: demand(0),
    after: level(1, { awakeSinceMs: NOW - 1 }),
  },
  {
    name: 'a call wakes it',
    before: level(0),
    scale: sleeper,
    demand: demand(1),
    after: level(1, { awakeSinceMs: NOW }),
  },
  {
    name: 'many calls wake as many handlers as they need',
    before: level(0),
    scale: sleeper,
    demand: demand(25),
    after: level(3, { awakeSinceMs: NOW }),
  },
  {
    name: 'asleep it stays while nobody calls',
    before: level(0),
    scale: sleeper,
    demand: demand(0),
    after: level(0),
  },
  {
    name: 'what has not shown that it runs, or fails, does not sleep',
    before: level(1),
    scale: sleeper,
    demand: demand(0, { maySleep: false }),
    after: level(1),
  },
  {
    name: 'no idle time: never asleep',
    before: level(1),
    scale: { min: 0, idleMs: 0 },
    demand: demand(0),
    after: level(1),
  },
  {
    name: 'fresh: as many ready ahead as the minimum, whatever is in use',
    before: level(2),
    scale: { min: 2, max: 10, perHandler: 1, fresh: true },
    demand: demand(0, { used: 5 }),
    after: level(2),
  },
  {
    name: 'fresh: those in use count against the maximum',
    before: level(2),
    scale: { min: 2, max: 6, perHandler: 1, fresh: true },
    demand: demand(9, { used: 5 }),
    after: level(1),
  },
]

describe('rescale', () => {
  for (const row of ROWS) {
    it(row.name, () => {
      const result = rescale(row.before, scale(row.scale), row.demand, NOW)
      assert.deepEqual(result, row.after)
      const again = rescale(result, scale(row.scale), row.demand, NOW)
      assert.equal(again.count, result.count, 'the same look twice changes nothing')
    })
  }

  it('stays within its bounds, never below what calls need, and comes down to the minimum', () => {
    const steps = fc.array(
      fc.record({
        calls: fc.integer({ min: 0, max: 90 }),
        ms: fc.integer({ min: 0, max: 60_000 }),
      }),
      { minLength: 1, maxLength: 30 },
    )
    const bounds = fc.record({
      min: fc.integer({ min: 0, max: 3 }),
      extra: fc.integer({ min: 0, max: 6 }),
    })
    let slept = 0
    fc.assert(
      fc.property(steps, bounds, fc.constantFrom(0, 1_000), (moves, { min, extra }, idleMs) => {
        const limits = scale({ min, max: Math.max(1, min + extra), idleMs })
        let nowMs = 0
        let now = ASLEEP
        let lastCallAtMs = 0
        for (const { calls, ms } of moves) {
          nowMs += ms
          now = rescale(now, limits, demand(calls, { lastCallAtMs }), nowMs)
          if (calls > 0) lastCallAtMs = nowMs
          assert.ok(now.count <= limits.max)
          assert.ok(now.count >= Math.min(limits.max, Math.ceil(calls / limits.perHandler)))
          if (min > 0 || idleMs === 0) assert.ok(now.count >= Math.max(1, min))
        }
        // Only time passes, and it looks when it says that it wants to.
        for (let look = 0; look < 20; look++) {
          const dueAtMs = rescaleDueAtMs(now, limits, demand(0, { lastCallAtMs }), nowMs)
          if (dueAtMs === undefined) break
          assert.ok(dueAtMs > nowMs)
          nowMs = dueAtMs
          now = rescale(now, limits, demand(0, { lastCallAtMs }), nowMs)
        }
        const least = min === 0 && idleMs > 0 ? 0 : Math.max(1, min)
        assert.equal(now.count, least)
        if (least === 0) slept++
      }),
    )
    assert.ok(slept > 0)
  })
})

describe('rescaleDueAtMs', () => {
  it('looks again when calls are in flight at the time to sleep: their end wakes nobody', () => {
    const busy = demand(1, { lastCallAtMs: NOW - 5_000 })
    assert.equal(rescaleDueAtMs(level(1), scale(sleeper), busy, NOW), NOW + sleeper.idleMs)
  })

  it('never, when nothing can change by itself', () => {
    assert.equal(rescaleDueAtMs(level(1), scale(), demand(3), NOW), undefined)
    assert.equal(rescaleDueAtMs(level(0), scale(sleeper), demand(0), NOW), undefined)
  })
})

describe('scaleOf', () => {
  const rows: readonly [string, Partial<FunctionSettings>, Partial<Scale>][] = [
    ['as many as replicas', { replicas: 3 }, { min: 3, max: 3 }],
    ['none, then one', { replicas: 0 }, { min: 0, max: 1 }],
    ['up to its maximum', { replicas: 2, replicasMax: 5 }, { min: 2, max: 5 }],
    ['single: a call each', { isolation: 'single', concurrency: 9 }, { perHandler: 1, max: 1 }],
    ['fresh: some more in use', { isolation: 'fresh', replicas: 2 }, { perHandler: 1, max: 10 }],
    ['fresh, bounded', { isolation: 'fresh', replicas: 2, replicasMax: 3 }, { max: 3 }],
    ['not put to sleep unless told', {}, { idleMs: 0, removeMs: 3_600_000 }],
  ]
  for (const [name, settings, expected] of rows) {
    it(name, () => {
      const result = scaleOf({ ...SETTINGS, ...settings })
      assert.deepEqual({ ...result, ...expected }, result)
    })
  }
})
