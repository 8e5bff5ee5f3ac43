import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { LatencyWindow } from '#agent/invoke/lane/latency.ts'
import { TimerWheel, WheelEntry } from '#agent/invoke/lane/wheel.ts'

class Entry extends WheelEntry {
  readonly expiredAtMs: number[] = []
  readonly #then: (() => void) | undefined

  constructor(then?: () => void) {
    super()
    this.#then = then
  }

  override expire(nowMs: number): void {
    this.expiredAtMs.push(nowMs)
    this.#then?.()
  }
}

function fakeWheel(): { readonly wheel: TimerWheel; readonly pass: (ms: number) => void } {
  let nowMs = 123.4
  const wheel = new TimerWheel({ nowMs: () => nowMs, ticking: false })
  return {
    wheel,
    pass(ms) {
      nowMs += ms
      wheel.advance()
    },
  }
}

describe('timer wheel', () => {
  it('each entry expires once, never early, at most two ticks late, unless it is disarmed', () => {
    const delays = fc.array(fc.integer({ min: 0, max: 20_000 }), { minLength: 1, maxLength: 50 })
    const steps = fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1, maxLength: 20 })
    fc.assert(
      fc.property(delays, steps, fc.integer({ min: 2, max: 5 }), (after, passes, nth) => {
        const { wheel, pass } = fakeWheel()
        const startMs = wheel.nowMs()
        const entries = after.map((delay) => {
          const entry = new Entry()
          wheel.arm(entry, startMs + delay)
          return entry
        })
        const disarmed = entries.filter((_, index) => index % nth === 0)
        for (const entry of disarmed) wheel.disarm(entry)
        for (const ms of passes) {
          pass(ms)
          const nowMs = wheel.nowMs()
          for (const [index, entry] of entries.entries()) {
            const dueMs = startMs + (after[index] ?? 0)
            if (disarmed.includes(entry)) assert.equal(entry.expiredAtMs.length, 0)
            else if (nowMs < dueMs) assert.equal(entry.expiredAtMs.length, 0)
            else if (nowMs >= dueMs + 20) assert.equal(entry.expiredAtMs.length, 1)
          }
        }
        pass(30_000)
        assert.equal(wheel.armed, 0)
      }),
      { numRuns: 200 },
    )
  })

  it('an entry may arm itself again and disarm its neighbours while it expires', () => {
    const { wheel, pass } = fakeWheel()
    const neighbour = new Entry()
    const again: Entry = new Entry(() => {
      wheel.disarm(neighbour)
      if (again.expiredAtMs.length < 3) wheel.arm(again, wheel.nowMs() + 1)
    })
    wheel.arm(neighbour, wheel.nowMs() + 5)
    wheel.arm(again, wheel.nowMs() + 5)
    for (let index = 0; index < 10; index += 1) pass(10)
    assert.deepEqual([again.expiredAtMs.length, neighbour.expiredAtMs.length], [3, 0])
  })
})

describe('latency window', () => {
  it('quantiles are at most 6.25 % above the exact ones', () => {
    const values = fc.array(fc.double({ min: 0.02, max: 100_000, noNaN: true }), { minLength: 1 })
    fc.assert(
      fc.property(values, (took) => {
        const window = new LatencyWindow()
        for (const ms of took) window.record(ms, 0)
        const sorted = took.toSorted((a, b) => a - b)
        const quantiles = window.quantiles(0)
        assert(quantiles !== undefined)
        for (const [share, value] of [
          [0.5, quantiles.p50],
          [0.9, quantiles.p90],
          [0.99, quantiles.p99],
        ] as const) {
          const exact = sorted[Math.ceil(share * sorted.length) - 1] ?? 0
          assert(value >= exact * 0.999 && value <= exact * 1.0625 + 0.001, `${value} for ${exact}`)
        }
        assert.equal(quantiles.max, sorted.at(-1))
      }),
    )
  })

  it('forgets after 30 to 60 seconds', () => {
    const window = new LatencyWindow()
    window.record(5, 0)
    window.record(7, 29_000)
    assert.equal(window.quantiles(31_000)?.max, 7)
    window.record(1, 59_000)
    assert.equal(window.quantiles(61_000)?.max, 1)
    assert.equal(window.quantiles(200_000), undefined)
  })

  it('odd values do no harm', () => {
    const window = new LatencyWindow()
    for (const ms of [-1, 0, Number.NaN, Number.POSITIVE_INFINITY, 1e12]) window.record(ms, 0)
    assert(window.quantiles(0) !== undefined)
  })
})
