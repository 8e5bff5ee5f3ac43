import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Blocks, blocks } from '#agent/sockets/index.ts'
import { eventually } from '#test/eventually.ts'

const KIB = 1024

it('a block that was given back is used again, by one taker at a time', () => {
  const first = blocks.take(60 * KIB)
  const { buffer } = first
  blocks.give(first.subarray(100, 200))
  blocks.give(first)
  const second = blocks.take(64 * KIB)
  const third = blocks.take(64 * KIB)
  assert.equal(second.buffer, buffer)
  assert.notEqual(third.buffer, buffer)
  assert.deepEqual([first.length, second.length], [60 * KIB, 64 * KIB])
  blocks.give(second)
  blocks.give(third)
})

it('what was not taken here is not kept, nor what is small, or larger than any frame', () => {
  const before = blocks.keptBytes
  for (const foreign of [
    Buffer.allocUnsafeSlow(72 * KIB),
    Buffer.from('pooled'),
    blocks.take(KIB),
    blocks.take(2_000 * KIB),
  ]) {
    blocks.give(foreign)
  }
  assert.equal(blocks.keptBytes, before)
})

it('what is kept is bounded', () => {
  const taken = Array.from({ length: 40 }, () => blocks.take(1_024 * KIB))
  for (const block of taken) blocks.give(block)
  assert.ok(blocks.keptBytes <= 32 * KIB * KIB, `${blocks.keptBytes} bytes`)
  assert.ok(blocks.keptBytes > 6 * KIB * KIB)
})

it('what nobody has wanted for a while is given up, and what is wanted is kept', async () => {
  const own = new Blocks(40)
  own.give(own.take(64 * KIB))
  for (const endMs = Date.now() + 150; Date.now() < endMs;) {
    own.give(own.take(64 * KIB))
    await new Promise((resolve) => setImmediate(resolve))
    assert.ok(own.keptBytes > 0)
  }
  await eventually(() => own.keptBytes === 0)
})
