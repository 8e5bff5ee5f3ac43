import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { EventReader } from '../../agent/proxy/coap/event-reader.ts'
import { MessageIds } from '../../agent/proxy/coap/message-ids.ts'

function read(chunks: readonly Buffer[], eventBytesMax = 1_000): string[] {
  const reader = new EventReader(eventBytesMax)
  return chunks.flatMap((chunk) => [...reader.push(chunk)].map(String))
}

const ROWS: readonly [name: string, stream: string, events: readonly string[]][] = [
  ['one line', 'data: a\n\n', ['a']],
  ['several lines are one event', 'data: a\ndata: b\n\ndata: c\n\n', ['a\nb', 'c']],
  ['line ends of every kind', 'data: a\r\n\r\ndata: b\r\rdata: c\n\r\n', ['a', 'b', 'c']],
  ['a byte order mark', '\ufeffdata: a\n\n', ['a']],
  ['only one space is left out', 'data:a\n\ndata:  b\n\n', ['a', ' b']],
  ['empty data', 'data\n\ndata:\n\ndata\ndata\n\n', ['', '', '\n']],
  ['comments and other fields', ': hi\nid: 1\nevent: x\nretry: 5\ndata: a\ndatas: b\n\n', ['a']],
  ['an event without data is none', 'event: x\n\n\n\n: ping\n\ndata: a\n\n', ['a']],
  ['an event that has not ended is none', 'data: a\n\ndata: b\n', ['a']],
  ['text of more than one byte per sign', 'data: ü€😀\n\n', ['ü€😀']],
]

for (const [name, stream, events] of ROWS) {
  test(`server-sent events: ${name}, however the stream is cut`, () => {
    const bytes = Buffer.from(stream)
    assert.deepEqual(read([bytes]), events)
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 10 })
    fc.assert(
      fc.property(cuts, (places) => {
        const ends = [...places.toSorted((a, b) => a - b), bytes.length]
        const chunks = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end))
        assert.deepEqual(read(chunks), events)
      }),
    )
  })
}

const line = (bytes: number): Buffer => Buffer.from(`data: ${'x'.repeat(bytes)}\n`)

test('server-sent events: one larger than allowed is a fault, in one line, in many, and unfinished', () => {
  assert.deepEqual(read([line(1_000), Buffer.from('\n')]), ['x'.repeat(1_000)])
  const tooLarge = { code: 'FUNCTION_OUTPUT_TOO_LARGE' }
  assert.throws(() => read([line(1_001)]), tooLarge)
  assert.throws(() => read(Array.from({ length: 20 }, () => line(60))), tooLarge)
  assert.throws(() => read(Array.from({ length: 20 }, () => Buffer.alloc(60, 'x'))), tooLarge)
  assert.throws(() => read([Buffer.from('data\n'.repeat(1_100))]), tooLarge)
})

test('message ids do not come twice within a lifetime, nor does one that is taken; later they go on', () => {
  for (const taken of [() => false, (id: number) => id % 2 === 0, (id: number) => id < 32_768]) {
    const ids = new MessageIds()
    const lastMs = new Map<number, number>()
    let given = 0
    for (let nowMs = 0; nowMs < 1_000_000; nowMs += 10) {
      for (let id = ids.take(nowMs, taken); id !== undefined; id = ids.take(nowMs, taken)) {
        assert.equal(taken(id), false)
        assert.ok(nowMs - (lastMs.get(id) ?? -Infinity) >= 247_000, `id ${id} at ${nowMs}`)
        lastMs.set(id, nowMs)
        given++
      }
      if (nowMs === 0) assert.equal(given, 16_384)
    }
    assert.ok(given > 80_000 && given < 90_000, String(given))
  }
})
