import assert from 'node:assert/strict'
import { finished } from 'node:stream/promises'
import { it } from 'node:test'
import { OutputLines } from '../../controller/build/output-lines.ts'
import { Slots } from '../../controller/slots.ts'

const LIMITS = { linesMax: 5, lastLines: 2 }

it('output comes as clean lines however it was cut', async () => {
  const seen: string[] = []
  const lines = new OutputLines((line) => seen.push(line), LIMITS)
  const sink = lines.sink()
  const text = Buffer.from('eins\r\nzw\u00f6lf\n\u001b[31mrot\u001b[0m\nlast')
  for (const byte of text) sink.write(Buffer.of(byte))
  await finished(sink.end())
  assert.deepEqual(seen, ['eins', 'zwölf', 'rot', 'last'])
  assert.deepEqual(lines.last, ['rot', 'last'])
})

it('a flood of output is cut, and its last lines are kept for the error', () => {
  const seen: string[] = []
  const lines = new OutputLines((line) => seen.push(line), LIMITS)
  for (let n = 1; n <= 9; n += 1) lines.line(`line ${n}`)
  assert.equal(seen.length, 6)
  assert.match(seen[5] ?? '', /more than 5 lines/)
  assert.deepEqual(lines.last, ['line 8', 'line 9'])
})

it('a line without an end does not grow for ever', async () => {
  const seen: string[] = []
  const sink = new OutputLines((line) => seen.push(line), LIMITS).sink()
  for (let n = 0; n < 40; n += 1) sink.write('x'.repeat(1000))
  await finished(sink.end())
  assert.ok(seen.length > 1)
  assert.ok(seen.every((line) => line.length <= 16 * 1024))
})

it('slots: no more at once than allowed, the rest in order, too many are refused', async (t) => {
  const slots = new Slots(1, 2, 'builds')
  const order: number[] = []
  const gate = Promise.withResolvers<void>()
  const first = slots.run(() => gate.promise, t.signal)
  const second = slots.run(async () => void order.push(2), t.signal)
  const third = slots.run(async () => void order.push(3), t.signal)
  await assert.rejects(
    slots.run(async () => void order.push(4), t.signal),
    { code: 'FUNCTION_SATURATED' },
  )
  assert.deepEqual(order, [])
  gate.resolve()
  await Promise.all([first, second, third])
  assert.deepEqual(order, [2, 3])
  assert.equal(slots.full, false)
})

it('slots: who stops waiting gives up its place, and the slot is not lost', async (t) => {
  const slots = new Slots(1, 2, 'builds')
  const gate = Promise.withResolvers<void>()
  const first = slots.run(() => gate.promise, t.signal)
  const leaver = new AbortController()
  const waiting = slots.run(async () => assert.fail('ran'), leaver.signal)
  leaver.abort(new Error('gone'))
  await assert.rejects(waiting, /gone/)
  gate.resolve()
  await first
  assert.equal(await slots.run(async () => 'ran', t.signal), 'ran')
  await assert.rejects(
    slots.run(() => Promise.reject(new Error('broken')), t.signal),
    /broken/,
  )
  assert.equal(slots.full, false)
})
