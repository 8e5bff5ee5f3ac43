import assert from 'node:assert/strict'
import { it } from 'node:test'
import { exceedsUnsent } from '#runtimes/nodejs/body-memory.ts'

const MIB = 1_048_576

it('what waits for a slow caller is bounded by the memory limit, one large piece by the protocol alone', (t) => {
  const { mock } = t.mock.method(process, 'constrainedMemory', () => 128 * MIB)
  assert.equal(exceedsUnsent(16 * MIB, true), false)
  assert.equal(exceedsUnsent(16 * MIB + 1, true), true)
  assert.equal(exceedsUnsent(64 * MIB, false), false)
  assert.equal(exceedsUnsent(64 * MIB + 1, false), true)
  mock.mockImplementation(() => 16 * MIB)
  assert.equal(exceedsUnsent(4 * MIB, true), false)
  assert.equal(exceedsUnsent(4 * MIB + 1, true), true)
  mock.mockImplementation(() => 0)
  assert.equal(exceedsUnsent(64 * MIB, true), false)
  assert.equal(exceedsUnsent(64 * MIB + 1, true), true)
})
