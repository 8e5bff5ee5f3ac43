import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { trend } from '../bench/soak/slope.ts'

const MINUTE_MS = 60_000
const BOUND = { perHour: 10, inRun: 5 }

/** Ten seconds apart, for an hour; the noise repeats and has no slope. */
function hour(perHour: number, noise: readonly number[] = [0]) {
  return Array.from({ length: 361 }, (_, n) => ({
    atMs: n * 10_000,
    value: 100 + (perHour * n) / 360 + (noise[n % noise.length] ?? 0),
  }))
}

/** Four minutes apart. */
const day = (perHour: number) =>
  hour(24 * perHour).map(({ atMs, value }) => ({ atMs: 24 * atMs, value }))

describe('the trend of a soak', () => {
  it('is the slope an hour, whatever the noise', () => {
    assert.equal(trend(hour(12), BOUND).perHour, 12)
    const { perHour, error } = trend(hour(12, [0, 30, -30, 5]), BOUND)
    assert.ok(Math.abs(perHour - 12) < 3 * error, `${perHour} ± ${error}`)
  })

  const rows = [
    { name: 'a rise above both bounds rises', points: hour(11), rises: true },
    { name: 'a rise below the bound does not', points: hour(9), rises: false },
    { name: 'a fall does not', points: hour(-50), rises: false },
    { name: 'one that its noise explains does not', points: hour(11, [0, 90, -90]), rises: false },
    {
      name: 'a steep one that is small in the run does not',
      points: hour(11).filter(({ atMs }) => atMs <= 20 * MINUTE_MS),
      rises: false,
    },
    { name: 'in a day a tenth of the bound is too much', points: day(1.2), rises: true },
    { name: 'in a day less than that is not', points: day(0.8), rises: false },
    { name: 'two points have none', points: hour(1_000).slice(0, 2), rises: false },
  ]
  for (const { name, points, rises } of rows) {
    it(name, () => assert.equal(trend(points, BOUND).rises, rises))
  }
})
