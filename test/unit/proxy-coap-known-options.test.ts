import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { encodeMessage, parseMessage, TYPE } from '#agent/proxy/coap/codec.ts'
import { KnownOptions } from '#agent/proxy/coap/known-options.ts'
import { readRequest } from '#agent/proxy/coap/request.ts'

const bytes = (max: number) =>
  fc
    .uint8Array({ maxLength: max })
    .map((array) => Buffer.from(array.map((byte) => (byte % 5 === 0 ? 0xff : byte))))

const optionLists = fc.array(
  fc.array(
    fc
      .tuple(fc.constantFrom(1, 3, 4, 11, 12, 15, 17, 60, 300), bytes(20))
      .map(([number, value]) => ({ number, value })),
    { maxLength: 5 },
  ),
  { minLength: 1, maxLength: 3 },
)

/** Messages that share few lists of options, some of them cut off or with more behind them. */
const asked = fc.array(
  fc.record({
    list: fc.nat(2),
    code: fc.constantFrom(1, 2),
    token: bytes(8),
    payload: fc.oneof(fc.constant(Buffer.alloc(0)), bytes(70)),
    cut: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(20) }),
    behind: fc.oneof({ weight: 5, arbitrary: fc.constant(Buffer.alloc(0)) }, bytes(3)),
  }),
  { minLength: 40, maxLength: 80 },
)

function ask(payload: string, path = 'echo', messageId = 1): Buffer {
  const options = [{ number: 11, value: Buffer.from(path) }]
  const token = Buffer.from([messageId])
  return encodeMessage({
    type: TYPE.con,
    code: 2,
    messageId,
    token,
    options,
    payload: Buffer.from(payload),
  })
}

function knownOf(datagram: Buffer, before: KnownOptions): unknown {
  const message = parseMessage(datagram, before)
  assert.ok(typeof message === 'object' && 'options' in message)
  return message.known
}

describe('options that came before', () => {
  it('give what reading them gives, whatever is around them', () => {
    let found = 0
    fc.assert(
      fc.property(optionLists, asked, (lists, messages) => {
        const before = new KnownOptions()
        for (const { list, code, token, payload, cut, behind } of messages) {
          const options = lists[list % lists.length] ?? []
          const head = { type: TYPE.con, code, messageId: 7, token, options, payload }
          const whole = Buffer.concat([encodeMessage(head), behind])
          const datagram = whole.subarray(0, whole.length - Math.min(cut, whole.length))
          const plain = parseMessage(datagram)
          const quick = parseMessage(datagram, before)
          if (typeof quick === 'object' && 'options' in quick) {
            if (quick.known !== undefined) found++
            const { known: _, ...rest } = quick
            assert.deepEqual({ ...rest, known: undefined }, plain)
            assert.deepEqual(readRequest(quick), readRequest({ ...quick, known: undefined }))
          } else assert.deepEqual(quick, plain)
        }
      }),
    )
    assert.ok(found > 500, `only ${found}`)
  })

  it('are known from the second time on, and do not hold the datagram', () => {
    const before = new KnownOptions()
    assert.equal(knownOf(ask('a'), before), undefined)
    const second = ask('another', 'echo', 2)
    const known = knownOf(second, before)
    assert.ok(known !== undefined)
    second.fill(0)
    assert.equal(knownOf(ask('', 'echo', 3), before), known)
    const third = parseMessage(ask('', 'echo', 4), before)
    assert.ok(typeof third === 'object' && 'options' in third)
    assert.equal(third.options[0]?.value.toString(), 'echo')
  })

  it('are bounded: a thousand paths drive each other out, and all are read right', () => {
    const before = new KnownOptions()
    const known = new Set<unknown>()
    for (let round = 0; round < 3; round++) {
      for (let path = 0; path < 1_000; path++) {
        for (let times = 0; times < 2; times++) {
          const message = parseMessage(ask('x', `path-${path}`), before)
          assert.ok(typeof message === 'object' && 'options' in message)
          assert.equal(message.options[0]?.value.toString(), `path-${path}`)
        }
      }
    }
    for (let path = 0; path < 1_000; path++) {
      const message = parseMessage(ask('x', `path-${path}`), before)
      if (typeof message === 'object' && 'options' in message) known.add(message.known)
    }
    known.delete(undefined)
    assert.ok(known.size <= 64, `${known.size} are known`)
  })
})
