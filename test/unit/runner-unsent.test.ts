import assert from 'node:assert/strict'
import { it } from 'node:test'
import { exceedsUnsent } from '#runtimes/nodejs/body-memory.ts'

const MIB = 1_048_576

it('what waits for a slow caller is bounded by the memory limit, one large piece by the protocol alone', () => {
  const rows: readonly (readonly [limit: number, piled: boolean, most: number])[] = [
    [128 * MIB, true, 16 * MIB],
    [128 * MIB, false, 64 * MIB],
    [16 * MIB, true, 4 * MIB],
    [Number.POSITIVE_INFINITY, true, 64 * MIB],
  ]
  for (const [limit, piled, most] of rows) {
    assert.equal(exceedsUnsent(most, piled, limit), false)
    assert.equal(exceedsUnsent(most + 1, piled, limit), true)
  }
})
