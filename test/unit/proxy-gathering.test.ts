import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { collectBody } from '#agent/proxy/body.ts'
import { BodyBudget } from '#agent/sockets/index.ts'

const MIB = 1_048_576
const CHUNK = Buffer.alloc(65_536, 'x')

/** An answer of half a MiB, a piece in each turn of the loop; tells what the budget has at most. */
function answer(budget: BodyBudget, most: { bytes: number }, chunks = 8): Readable {
  let left = chunks
  return new Readable({
    highWaterMark: 1,
    read() {
      setImmediate(() => {
        most.bytes = Math.max(most.bytes, budget.bytes)
        this.push(left-- > 0 ? CHUNK : null)
      })
    },
  })
}

describe('answers that must be whole', () => {
  it('are gathered inside the budget, all to their end', async () => {
    const budget = new BodyBudget(MIB)
    const most = { bytes: 0 }
    const bodies = Array.from({ length: 12 }, () => answer(budget, most))
    const wholes = await Promise.all(bodies.map(async (body) => collectBody(body, MIB, budget)))
    assert.ok(wholes.every(({ length }) => length === 8 * CHUNK.length))
    assert.ok(most.bytes > MIB / 2 && most.bytes <= 1.5 * MIB, `${most.bytes} bytes`)
    assert.equal(budget.bytes, 0)
  })

  it('one that is larger than the whole budget comes to its end as well', async () => {
    const budget = new BodyBudget(MIB / 4)
    const whole = await collectBody(answer(budget, { bytes: 0 }), MIB, budget)
    assert.equal(whole.length, 8 * CHUNK.length)
    assert.equal(budget.bytes, 0)
  })

  it('one that is given up while it waits leaves nothing', async () => {
    const budget = new BodyBudget(2 * CHUNK.length)
    const first = answer(budget, { bytes: 0 }, 2)
    first.pause()
    budget.force(2 * CHUNK.length)
    const silent = new Readable({ read() {} })
    const oldest = Promise.resolve(collectBody(silent, MIB, budget))
    const waiting = Promise.resolve(collectBody(first, MIB, budget))
    const lost = assert.rejects(waiting, /gone/)
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.ok(budget.short, 'it waits')
    first.destroy(new Error('gone'))
    await lost
    silent.push(null)
    await oldest
    budget.give(2 * CHUNK.length)
    assert.deepEqual([budget.bytes, budget.short], [0, false])
  })
})
