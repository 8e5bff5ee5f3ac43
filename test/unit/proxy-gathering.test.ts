import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { collectBody } from '#agent/proxy/body.ts'
import { BodyBudget } from '#agent/sockets/index.ts'
import { collectGarbage } from '#test/collect-garbage.ts'

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

function byte(at: number): Buffer {
  return Buffer.from([at & 0xff])
}

/** What is alive. */
function used(): number {
  collectGarbage()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
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

  it('one that comes in pieces of a byte costs its bytes, and is in order', async () => {
    const pieces = 60_000
    let costBytes = 0
    async function* source(): AsyncGenerator<Buffer> {
      const before = used()
      for (let at = 0; at < pieces; at += 1) yield byte(at)
      yield CHUNK
      yield Buffer.from('end')
      // What the loop itself needed is let go of with its turn.
      await sleep(1)
      costBytes = used() - before
    }
    const body = Readable.from(source(), { highWaterMark: 1 })
    const whole = await collectBody(body, MIB, new BodyBudget(MIB))
    const expected = Array.from({ length: pieces }, (_, at) => byte(at))
    assert.ok(whole.equals(Buffer.concat([...expected, CHUNK, Buffer.from('end')])))
    // Five times as much when each piece is kept; what the collector has not looked at yet counts, too.
    assert.ok(costBytes < 7 * MIB, `${costBytes} bytes`)
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
