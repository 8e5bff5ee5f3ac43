import assert from 'node:assert/strict'
import { it } from 'node:test'
import { bodyGarbage } from '#agent/memory/index.ts'
import { BodyBudget, roomOf } from '#agent/sockets/index.ts'

const MIB = 1024 * 1024

it('how much memory calls may take follows from what the process may have', () => {
  const rows = [
    [64, 8, 64],
    [96, 8, 64],
    [128, 24, 64],
    [256, 88, 256],
    [65_536, 1024, 256],
  ] as const
  for (const [limitMiB, bodiesMiB, windowKiB] of rows) {
    const { bodyBytes, windowBytes } = roomOf(limitMiB * MIB)
    assert.deepEqual([bodyBytes / MIB, windowBytes / 1024], [bodiesMiB, windowKiB], `${limitMiB}`)
  }
})

it('who waits for memory gets it in turn, the large before the small that came later', async () => {
  const budget = new BodyBudget(100)
  assert.ok(budget.take(90))
  const got: string[] = []
  const take = (name: string) => (bytes: number) => void got.push(`${name} ${bytes}`)
  budget.wait(50, take('large'))
  const leave = budget.wait(20, take('gone'))
  budget.wait(5, take('small'))
  assert.equal(budget.take(1), false, 'others have waited longer')
  leave()
  await Promise.resolve()
  assert.deepEqual(got, [])
  budget.give(90)
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(got, ['large 50', 'small 5'])
  assert.equal(budget.bytes, 55)
  assert.equal(budget.short, false)
})

it('more than there is altogether is all there is', async () => {
  const budget = new BodyBudget(100)
  budget.force(120)
  const taken = new Promise((resolve) => budget.wait(1_000, resolve))
  budget.give(120)
  assert.equal(await taken, 100)
})

it('all garbage is looked at when bodies and garbage are above their bound, not at every turn', () => {
  let [young, all, bytes, nowMs] = [0, 0, 10, 0]
  const collect = bodyGarbage({
    young: () => (young += 1),
    all: () => (all += 1),
    bytes: () => bytes,
    bytesMax: 20,
    nowMs: () => nowMs,
  })
  collect()
  assert.deepEqual([young, all], [1, 0])
  bytes = 30
  collect()
  collect()
  assert.deepEqual([young, all], [3, 1])
  nowMs = 600
  collect()
  assert.deepEqual([young, all], [4, 2])
})
