import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
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
  it('are gathered inside the budget; each waits for room, and comes to its end when there is some', async () => {
    const budget = new BodyBudget(MIB)
    const most = { bytes: 0 }
    const wholes: Promise<Buffer>[] = []
    for (let n = 0; n < 6; n += 1) {
      wholes.push(Promise.resolve(collectBody(answer(budget, most), MIB, budget)))
      await sleep(30)
    }
    for (const { length } of await Promise.all(wholes)) assert.equal(length, 8 * CHUNK.length)
    assert.ok(most.bytes <= MIB, `${most.bytes} bytes`)
    assert.equal(budget.bytes, 0)
  })

  it('one that finds no room is given up, and a small one needs none', async () => {
    const budget = new BodyBudget(MIB)
    budget.force(MIB)
    const code = 'FUNCTION_OUTPUT_TOO_LARGE'
    await assert.rejects(async () => collectBody(answer(budget, { bytes: 0 }), MIB, budget), {
      code,
    })
    const small = await collectBody(Readable.from([Buffer.alloc(1_000)]), MIB, budget)
    assert.equal(small.length, 1_000)
    budget.give(MIB)
    assert.equal(budget.bytes, 0)
  })

  it('one whose caller gives up while it waits leaves nothing', async () => {
    const budget = new BodyBudget(CHUNK.length)
    budget.force(CHUNK.length)
    const body = answer(budget, { bytes: 0 })
    const lost = assert.rejects(async () => collectBody(body, MIB, budget), /gone/)
    await sleep(50)
    body.destroy(new Error('gone'))
    await lost
    budget.give(CHUNK.length)
    assert.equal(budget.bytes, 0)
  })
})
