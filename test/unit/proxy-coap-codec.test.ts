import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generate, parse } from 'coap-packet'
import * as fc from 'fast-check'
import {
  codeOf,
  encodeEmpty,
  encodeMessage,
  parseMessage,
  uintOf,
  uintOption,
} from '#agent/proxy/coap/codec.ts'

const bytes = (min: number, max: number) =>
  fc.uint8Array({ minLength: min, maxLength: max }).map((array) => Buffer.from(array))

const message = fc.record({
  type: fc.constantFrom(0 as const, 1 as const, 2 as const, 3 as const),
  code: fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 0x45, 0x5f, 0x84, 0xa0),
  messageId: fc.integer({ min: 0, max: 0xffff }),
  token: bytes(0, 8),
  options: fc.array(
    fc
      .tuple(fc.integer({ min: 0, max: 65_535 }), bytes(0, 400))
      .map(([number, value]) => ({ number, value })),
    { maxLength: 20 },
  ),
  payload: bytes(0, 300),
})

test('what it writes it reads again, and coap-packet reads the same', () => {
  fc.assert(
    fc.property(message, (sent) => {
      const reply = { ...sent } // fast-check's records have no prototype; this one does.
      const datagram = encodeMessage(reply)
      const options = sent.options.toSorted((a, b) => a.number - b.number)
      assert.deepEqual(parseMessage(datagram), { ...reply, options, known: undefined })
      const theirs = parse(datagram)
      assert.equal(codeOf(theirs.code), sent.code)
      assert.equal(theirs.messageId, sent.messageId)
      assert.ok(theirs.token.equals(sent.token))
      assert.ok(theirs.payload.equals(sent.payload))
      assert.deepEqual(
        theirs.options.map(({ value }) => value),
        options.map(({ value }) => value),
      )
    }),
  )
})

test('what coap-packet writes it reads', () => {
  fc.assert(
    fc.property(message, (sent) => {
      const theirs = generate(
        {
          code: '0.02',
          confirmable: true,
          messageId: sent.messageId,
          token: sent.token,
          payload: sent.payload,
          options: sent.options.map(({ number, value }) => ({ name: String(number), value })),
        },
        65_507,
      )
      const ours = parseMessage(theirs)
      assert.ok(typeof ours === 'object' && 'options' in ours)
      assert.ok(ours.payload.equals(sent.payload))
      assert.deepEqual(
        ours.options.map(({ number }) => number),
        sent.options.map(({ number }) => number).toSorted((a, b) => a - b),
      )
    }),
  )
})

test('any bytes at all are a message, malformed or ignored, and never an exception', () => {
  let seen = 0
  fc.assert(
    fc.property(bytes(0, 40), fc.boolean(), (datagram, coap) => {
      if (coap && datagram[0] !== undefined) datagram[0] = 0x40 | (datagram[0] & 0x37)
      const parsed = parseMessage(datagram)
      if (typeof parsed === 'object' && 'options' in parsed) {
        seen++
        assert.deepEqual(parseMessage(encodeMessage(parsed)), parsed)
      }
    }),
    { numRuns: 5_000 },
  )
  assert.ok(seen > 50, `only ${seen} messages`)
})

test('message format errors: a confirmable message is to be reset, all else ignored', () => {
  const rows: [string, string, boolean][] = [
    ['nothing', '', false],
    ['three bytes', '400112', false],
    ['version 0', '00011234', false],
    ['version 2', '80011234', false],
    ['empty with a token', '4100123401', true],
    ['empty with bytes behind', '40001234ff', true],
    ['a token of 9 bytes', '49011234010203040506070809', true],
    ['a token that is cut off', '4401123401', true],
    ['code class 1', '40201234', true],
    ['code class 7', '40e01234', true],
    ['a payload marker and nothing', '40011234ff', true],
    ['an option that is cut off', '40011234b56162', true],
    ['an option delta of 15', '40011234f0', true],
    ['an option length of 15', '400112341f', true],
    ['an extended delta that is cut off', '40011234d0', true],
    ['a long extended delta that is cut off', '40011234e001', true],
    ['a long extended length that is cut off', '4001123410 0e01'.replace(' ', ''), true],
    ['an option number above 65535', '40011234e0ffff', true],
    ['65 options', `40011234${'00'.repeat(65)}`, true],
  ]
  for (const [name, hex, reset] of rows) {
    const confirmable = Buffer.from(hex, 'hex')
    const expected = reset ? { malformed: 0x1234 } : 'ignore'
    assert.deepEqual(parseMessage(confirmable), expected, name)
    if (!reset) continue
    for (const type of [0x10, 0x20, 0x30]) {
      const other = Buffer.from(confirmable)
      other[0] = (other[0] ?? 0) | type
      assert.equal(parseMessage(other), 'ignore', name)
    }
  }
})

test('numbers take as few bytes as they need', () => {
  for (const [value, length] of [
    [0, 0],
    [1, 1],
    [255, 1],
    [256, 2],
    [65_536, 3],
    [0xffff_ffff, 4],
  ] as const) {
    const option = uintOption(14, value)
    assert.equal(option.value.length, length)
    assert.equal(uintOf(option.value), value)
  }
  assert.equal(codeOf('4.29'), 0x9d)
  assert.equal(encodeEmpty(3, 0x1234).toString('hex'), '70001234')
})
