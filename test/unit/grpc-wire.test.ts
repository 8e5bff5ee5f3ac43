import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { BodyBudget } from '#agent/sockets/index.ts'
import { ConnectionError } from '#agent/proxy/grpc/server/h2/format.ts'
import { FrameReader } from '#agent/proxy/grpc/server/h2/frame-reader.ts'
import { encodeHeader } from '#agent/proxy/grpc/server/h2/header-block.ts'
import { IdTable } from '#agent/proxy/grpc/server/h2/id-table.ts'
import { HeaderDecoder } from '#agent/proxy/grpc/server/h2/header-decoder.ts'
import { frameOf, StatusError } from '#agent/proxy/grpc/server/index.ts'
import { MessageReader } from '#agent/proxy/grpc/server/message-reader.ts'
import { isGrpc, readHead, timeoutMsOf } from '#agent/proxy/grpc/server/request-head.ts'
import { trailersOf } from '#agent/proxy/grpc/server/status.ts'
import { clientFrame, PREFACE } from '#test/raw-h2.ts'

/** A piece of bytes cut anywhere. */
function cutAt(whole: Buffer, places: readonly number[]): Buffer[] {
  const cuts = [...places.map((place) => place % (whole.length + 1)), 0, whole.length]
  const sorted = [...new Set(cuts)].toSorted((a, b) => a - b)
  return sorted.slice(1).map((end, index) => whole.subarray(sorted[index], end))
}

function fieldsOf(decoder: HeaderDecoder, hex: string): string[] {
  const block = Buffer.from(hex, 'hex')
  return decoder.decode(block, 0, block.length).fields
}

it('HPACK: the examples of RFC 7541, appendix C, with and without Huffman codes', () => {
  const first = [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'www.example.com']
  const third = [':method', 'GET', ':scheme', 'https', ':path', '/index.html', ':authority']
  for (const blocks of [
    [
      '828684410f7777772e6578616d706c652e636f6d',
      '828684be58086e6f2d6361636865',
      '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
    ],
    [
      '828684418cf1e3c2e5f23a6ba0ab90f4ff',
      '828684be5886a8eb10649cbf',
      '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
    ],
  ]) {
    const decoder = new HeaderDecoder(16_384)
    assert.deepEqual(fieldsOf(decoder, blocks[0] ?? ''), first)
    assert.deepEqual(fieldsOf(decoder, blocks[1] ?? ''), [...first, 'cache-control', 'no-cache'])
    assert.deepEqual(fieldsOf(decoder, blocks[2] ?? ''), [
      ...third,
      'www.example.com',
      'custom-key',
      'custom-value',
    ])
  }
})

it('HPACK: our own blocks are read as what they were; any other bytes are fields or a compression error, never more than the limit', () => {
  const value = fc.stringMatching(/^[\x20-\x7e]{0,300}$/)
  const name = fc.stringMatching(/^[a-z-]{1,30}$/)
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 8 }), (pairs) => {
      const block = encodeHeader([':status', '200', ...pairs.flat()])
      const { fields } = new HeaderDecoder(100_000).decode(block, 0, block.length)
      assert.deepEqual(fields, [':status', '200', ...pairs.flat()])
    }),
  )
  const LIMIT = 500
  let decoded = 0
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 8 }), (blocks) => {
      const decoder = new HeaderDecoder(LIMIT)
      try {
        for (const block of blocks) {
          const { fields } = decoder.decode(Buffer.from(block), 0, block.length)
          assert.ok(fields.join('').length + (fields.length / 2) * 32 <= LIMIT)
          decoded += 1
        }
      } catch (error) {
        assert.ok(error instanceof ConnectionError, String(error))
      }
    }),
    { numRuns: 3_000 },
  )
  assert.ok(decoded > 100, `${decoded} blocks decoded`)
})

it('HPACK: a block that says little and means much is counted, and unfolded only to the limit', () => {
  const entry = Buffer.concat([Buffer.from([0x40, 1, 0x61, 100]), Buffer.alloc(100, 'x')])
  const block = Buffer.concat([entry, Buffer.alloc(999, 0x80 | 62)])
  const { fields, bytes } = new HeaderDecoder(1_000).decode(block, 0, block.length)
  assert.equal(fields.length, 2 * 7)
  assert.equal(bytes, 1_000 * (1 + 100 + 32))
})

it('HPACK: a malformed field makes the request invalid, also when it comes out of the table', () => {
  const rows: [string[], boolean][] = [
    [['x', 'y'], true],
    [['te', 'trailers'], true],
    [['te', 'gzip'], false],
    [['X', 'y'], false],
    [['a b', 'y'], false],
    [['', 'y'], false],
    [['x', 'a\nb'], false],
    [['x', 'a\0b'], false],
    [['connection', 'close'], false],
    [['transfer-encoding', 'chunked'], false],
    [['content-length', '1x'], false],
    [[':path', ''], false],
    [[':path', '/a', ':path', '/a'], false],
    [['x', 'y', ':path', '/a'], false],
    [[':status', '200'], false],
    [[':protocol', 'x'], false],
  ]
  for (const [fields, valid] of rows) {
    const decoder = new HeaderDecoder(10_000)
    // Literals that go into the table, and then the same out of it.
    const parts: Buffer[] = []
    for (const text of fields) parts.push(Buffer.from([text.length]), Buffer.from(text))
    const block: Buffer[] = []
    for (let at = 0; at < parts.length; at += 4)
      block.push(Buffer.from([0x40]), ...parts.slice(at, at + 4))
    const whole = Buffer.concat(block)
    assert.equal(decoder.decode(whole, 0, whole.length).valid, valid, JSON.stringify(fields))
    if (fields.length > 2) continue
    const again = decoder.decode(Buffer.from([0x80 | 62]), 0, 1)
    assert.deepEqual([again.fields, again.valid], [fields, valid], JSON.stringify(fields))
  }
})

it('frames are the same however the bytes are cut', () => {
  const frames = fc.array(
    fc.tuple(fc.nat(255), fc.nat(255), fc.nat(2 ** 31 - 1), fc.uint8Array({ maxLength: 200 })),
    { maxLength: 6 },
  )
  fc.assert(
    fc.property(frames, fc.array(fc.nat(), { maxLength: 30 }), (sent, cuts) => {
      const seen: unknown[] = []
      const reader = new FrameReader({
        frame: (type, flags, id, buffer, start, end) =>
          void seen.push([type, flags, id, buffer.toString('hex', start, end)]),
      })
      const wire = sent.map(([type, flags, id, payload]) => clientFrame(type, flags, id, payload))
      for (const chunk of cutAt(Buffer.concat([PREFACE, ...wire]), cuts)) reader.push(chunk)
      const expected = sent.map(([type, flags, id, payload]) => [
        type,
        flags,
        id,
        Buffer.from(payload).toString('hex'),
      ])
      assert.deepEqual(seen, expected)
    }),
    { numRuns: 500 },
  )
})

it('messages are the same however the bytes are cut; nothing stays held, and what is announced is not kept room for', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 3_000 }), { maxLength: 5 }),
      fc.array(fc.nat(), { maxLength: 20 }),
      (messages, cuts) => {
        const budget = new BodyBudget(1_000_000)
        const seen: string[] = []
        const sink = { message: (bytes: Buffer) => void seen.push(bytes.toString('hex')) }
        const reader = new MessageReader(sink, { messageBytesMax: 3_000, budget })
        const whole = Buffer.concat(messages.map((message) => frameOf(message)))
        for (const chunk of cutAt(whole, cuts)) reader.push(chunk)
        assert.deepEqual(
          seen,
          messages.map((message) => Buffer.from(message).toString('hex')),
        )
        assert.equal(reader.partial, false)
        assert.equal(budget.bytes, 0)
      },
    ),
    { numRuns: 300 },
  )
  const budget = new BodyBudget(10_000)
  const reader = new MessageReader({ message() {} }, { messageBytesMax: 8_000_000, budget })
  const announced = Buffer.alloc(105)
  announced.writeUInt32BE(8_000_000, 1)
  reader.push(announced)
  assert.ok(budget.bytes < 1_000, `${budget.bytes} bytes are held`)
  assert.throws(() => reader.push(Buffer.alloc(10_000)), StatusError)
  reader.close()
  assert.equal(budget.bytes, 0)
})

it('a reader that is closed by its message holds nothing of what lies behind it', () => {
  const budget = new BodyBudget(10_000)
  const seen: number[] = []
  const sink = {
    message(bytes: Buffer) {
      seen.push(bytes.length)
      reader.close()
    },
  }
  const reader = new MessageReader(sink, { messageBytesMax: 1_000, budget })
  const next = frameOf(Buffer.alloc(900)).subarray(0, 500)
  reader.push(Buffer.concat([frameOf(Buffer.alloc(10)), next]))
  assert.deepEqual([seen, budget.bytes], [[10], 0])
})

it('grpc-timeout, content types and metadata are read as the protocol has them', () => {
  const timeouts: [string, number | undefined][] = [
    ['1H', 3_600_000],
    ['2M', 120_000],
    ['3S', 3_000],
    ['99999999m', 99_999_999],
    ['500u', 0.5],
    ['1000000n', 1],
    ['100000000m', undefined],
    ['S', undefined],
    ['-1S', undefined],
    ['1.5S', undefined],
    ['1s', undefined],
    ['1 S', undefined],
  ]
  for (const [sent, ms] of timeouts) assert.equal(timeoutMsOf(sent), ms, sent)
  const types: [string, boolean][] = [
    ['application/grpc', true],
    ['application/grpc+proto', true],
    ['application/grpc;charset=utf-8', true],
    ['application/grpc+json', false],
    ['application/grpc-web', false],
    ['application/grpcx', false],
    ['text/plain', false],
    ['', false],
  ]
  for (const [type, taken] of types) assert.equal(isGrpc(type), taken, type)
  const head = readHead(
    `:method POST :path /a/b :authority h te trailers content-type application/grpc grpc-timeout 1S grpc-encoding gzip
    grpc-accept-encoding gzip x-a 1 x-a 2 x-bin AQI,AQ user-agent u`.split(/\s+/),
  )
  assert.deepEqual(head.metadata, [
    'x-a',
    '1',
    'x-a',
    '2',
    'x-bin',
    'AQI=, AQ==',
    'user-agent',
    'u',
  ])
  assert.equal(head.authority, 'h')
})

/** `grpc-message` of a status with that text. */
function messageOf(text: string): string | undefined {
  return trailersOf({ code: 2, message: text })[3]
}

it('grpc-message is percent-encoded, and cut before it is too long for a header', () => {
  assert.equal(messageOf('plain text ~'), 'plain text ~')
  assert.equal(messageOf('100 %\n'), '100 %25%0A')
  assert.equal(messageOf('grüezi €'), 'gr%C3%BCezi %E2%82%AC')
  assert.deepEqual(trailersOf({ code: 0, message: '' }), ['grpc-status', '0'])
  const long = messageOf('ä'.repeat(100_000)) ?? ''
  assert.ok(long.length <= 4_096, `${long.length} characters`)
  assert.match(decodeURIComponent(long), /^ä+\.\.\.$/)
})

it('streams by id: whatever comes and goes, the table has what a Map would have', () => {
  // Ids that want the same place, and those of a long connection.
  const id = fc
    .oneof(
      fc.nat(40),
      fc.nat(20).map((n) => n * 32),
      fc.nat(2 ** 30),
    )
    .map((n) => n * 2 + 1)
  const step = fc.record({ id, adds: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { minLength: 50, maxLength: 400 }), (steps) => {
      const table = new IdTable<{ readonly id: number }>()
      const model = new Map<number, { readonly id: number }>()
      for (const { id: one, adds } of steps) {
        if (adds && !model.has(one)) {
          const stream = { id: one }
          table.add(stream)
          model.set(one, stream)
        } else if (!adds) assert.equal(table.delete(one), model.delete(one))
        assert.equal(table.get(one), model.get(one))
        assert.equal(table.size, model.size)
      }
      const found = table.values().toSorted((a, b) => a.id - b.id)
      assert.deepEqual(
        found,
        [...model.values()].toSorted((a, b) => a.id - b.id),
      )
    }),
  )
})
