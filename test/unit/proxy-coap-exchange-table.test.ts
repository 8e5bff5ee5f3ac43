import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { collectGarbage } from '#test/collect-garbage.ts'
import { eventually } from '#test/eventually.ts'
import { ExchangeTable } from '#agent/proxy/coap/exchange-table.ts'

const BOUNDS = { entriesMax: 20, entriesPerAddressMax: 8, bytesMax: 1_000_000, lifetimeMs: 100 }

/** What the table promises, without its speed: a list, oldest first. */
class Model {
  entries: { address: string; key: string; answer: string; expiresMs: number }[] = []
  readonly working = new Set<string>()

  done(address: string, key: string, answer: string, nowMs: number): void {
    this.working.delete(key)
    this.entries.push({ address, key, answer, expiresMs: nowMs + BOUNDS.lifetimeMs })
    const own = this.entries.filter((entry) => entry.address === address)
    if (own.length > BOUNDS.entriesPerAddressMax) this.#remove(own[0])
    if (this.entries.length > BOUNDS.entriesMax) this.#remove(this.entries[0])
  }

  #remove(entry: Model['entries'][number] | undefined): void {
    this.entries = this.entries.filter((other) => other !== entry)
  }
}

const step = fc.record({
  address: fc.constantFrom('::1', '10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'),
  port: fc.constantFrom(1, 65_535),
  messageId: fc.integer({ min: 0, max: 15 }),
  kind: fc.oneof(
    { weight: 2, arbitrary: fc.constant('add') },
    { weight: 30, arbitrary: fc.constant('done') },
    { weight: 1, arbitrary: fc.constant('wait') },
  ),
  answerBytes: fc.integer({ min: 0, max: 40 }),
})

test('it holds what a simple list would hold, whatever comes in whatever order', () => {
  let dropped = 0
  fc.assert(
    fc.property(fc.array(step, { minLength: 50, maxLength: 400 }), (steps) => {
      let nowMs = 0
      const table = new ExchangeTable<string>({ ...BOUNDS, nowMs: () => nowMs })
      const model = new Model()
      for (const { address, port, messageId, kind, answerBytes } of steps) {
        const key = `${address} ${port} ${messageId}`
        let row = table.find(address, port, messageId)
        const alive = model.entries.filter(({ expiresMs }) => expiresMs > nowMs)
        const entry = alive.find((one) => one.key === key)
        assert.equal(row >= 0, entry !== undefined || model.working.has(key), key)
        if (entry !== undefined) assert.equal(table.answerOf(row).toString(), entry.answer)
        if (model.working.has(key)) assert.equal(table.workOf(row), key)
        if (kind === 'wait') {
          nowMs += 10
          table.sweep()
          model.entries = model.entries.filter(({ expiresMs }) => expiresMs > nowMs)
        } else if (row < 0) {
          row = table.add(address, port, messageId, key)
          model.working.add(key)
        }
        if (kind === 'done' && model.working.has(key)) {
          const answer = `${messageId % 10}`.repeat(answerBytes)
          table.done(row, Buffer.from(answer))
          model.done(address, key, answer, nowMs)
        }
        assert.equal(table.size, model.entries.length)
      }
      dropped += table.evicted
    }),
    { numRuns: 200 },
  )
  assert.ok(dropped > 100, `only ${dropped} were dropped`)
})

test('bytes are bounded even where one small answer of each peer keeps a block from being given back', () => {
  const table = new ExchangeTable<number>({
    entriesMax: 100_000,
    entriesPerAddressMax: 100,
    bytesMax: 1_000_000,
    lifetimeMs: 1_000,
    nowMs: () => 0,
  })
  const answer = Buffer.alloc(1_000)
  for (let call = 0; call < 20_000; call++) {
    // A flood from one address, and every twentieth request from an address of its own.
    const address = call % 20 === 0 ? `10.0.${call >> 8}.${call & 0xff}` : '10.1.1.1'
    const row = table.add(address, 1, call & 0xffff, call)
    table.done(row, answer)
    assert.ok(table.bytes <= 1_000_000, `${table.bytes} bytes`)
  }
  assert.ok(table.size > 20)
})

test('a request that is being worked on is never dropped, and its table grows with it', () => {
  const table = new ExchangeTable<number>({ ...BOUNDS, nowMs: () => 0 })
  for (let call = 0; call < 5_000; call++) table.add('::1', 7, call, call)
  for (let call = 0; call < 100; call++) {
    table.done(table.add('::1', 8, call, call), Buffer.from('x'))
  }
  for (let call = 0; call < 5_000; call++) {
    assert.equal(table.workOf(table.find('::1', 7, call)), call)
  }
  assert.equal(table.size, BOUNDS.entriesPerAddressMax)
})

test('an answer larger than a block is kept as well, and empty ones cost no block', () => {
  const table = new ExchangeTable<number>({ ...BOUNDS, nowMs: () => 0 })
  const empty = table.add('::1', 1, 1, 0)
  table.done(empty, Buffer.alloc(0))
  const { bytes } = table
  const large = table.add('::1', 1, 2, 0)
  table.done(large, Buffer.alloc(60_000, 'x'))
  assert.equal(table.answerOf(empty).length, 0)
  assert.ok(table.answerOf(large).equals(Buffer.alloc(60_000, 'x')))
  assert.ok(table.bytes >= bytes + 60_000)
})

test('memory of answers is used again, and an answer that was asked for stays as it was', () => {
  const table = new ExchangeTable<string>({ ...BOUNDS, nowMs: () => 0 })
  const asked: { readonly answer: Buffer; readonly text: string }[] = []
  for (let id = 0; id < 2_000; id++) {
    const text = `${id} `.repeat(200)
    const row = table.add('10.0.0.1', 1, id, 'work')
    table.done(row, Buffer.from(text))
    asked.push({ answer: table.answerOf(row), text })
  }
  for (const { answer, text } of asked) assert.equal(answer.toString(), text)
  assert.ok(table.bytes < 100_000, `${table.bytes} bytes`)
})

/** What tests before have left is given back later, by another thread: once nothing changes any more. */
async function settledBytes(): Promise<number> {
  let bytes = allBytes()
  await eventually(() => {
    const before = bytes
    bytes = allBytes()
    return bytes === before
  })
  return bytes
}

/** Outside of the heap. */
function allBytes(): number {
  collectGarbage()
  return process.memoryUsage().arrayBuffers
}

test('when all has expired its memory is given back, and it works as before', async () => {
  let nowMs = 0
  const bounds = { entriesMax: 100_000, entriesPerAddressMax: 100_000, bytesMax: 1e8 }
  const table = new ExchangeTable<number>({ ...bounds, lifetimeMs: 100, nowMs: () => nowMs })
  const before = await settledBytes()
  for (let round = 0; round < 2; round++) {
    for (let call = 0; call < 50_000; call++) {
      table.done(table.add('::1', 1, call, call), Buffer.from(`answer ${call}`))
    }
    assert.equal(table.answerOf(table.find('::1', 1, 49_999)).toString(), 'answer 49999')
    const busy = allBytes()
    assert.ok(busy > before + 2_000_000, `${busy - before} bytes`)
    const working = table.add('::1', 2, 1, 7)
    nowMs += 200
    table.sweep()
    assert.equal(table.workOf(table.find('::1', 2, 1)), 7, 'not while one is worked on')
    table.done(working, Buffer.from('late'))
    nowMs += 200
    table.sweep()
    await eventually(() => allBytes() < before + 500_000)
  }
})
