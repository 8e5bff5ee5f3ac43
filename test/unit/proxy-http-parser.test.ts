import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { readRequestFields } from '#agent/proxy/http/fields.ts'
import { readFraming } from '#agent/proxy/http/framing.ts'
import { Llhttp } from '#agent/proxy/http/llhttp.ts'
import { ParserPool, RequestParser } from '#agent/proxy/http/request-parser.ts'

const LIMITS = { headerBytesMax: 2048, headerFieldsMax: 10 }
const llhttp = new Llhttp()

interface Seen {
  head: string
  body: string
  rest: string
  broken: string
}

/** One request, read in the pieces that end at `cuts`. */
function read(text: string, cuts: readonly number[] = []): Seen {
  const parser = new RequestParser(llhttp, LIMITS)
  const bytes = Buffer.from(text, 'latin1')
  let body = ''
  let start = 0
  for (const end of [...cuts.filter((cut) => cut < bytes.length), bytes.length]) {
    // A buffer that is used again: nothing may be kept of it.
    const piece = Buffer.from(bytes.subarray(start, end))
    let at = parser.readHead(piece, 0, piece.length)
    const { head } = parser
    if (head !== undefined && 'chunked' in framing(parser) && at < piece.length) {
      at = parser.readChunks(piece, at, piece.length, (from, first, last) => {
        body += from.latin1Slice(first, last)
      })
    }
    start += at
    piece.fill('?')
    if (parser.broken !== undefined || (head !== undefined && !isOpen(parser))) break
  }
  return {
    head: JSON.stringify(parser.head),
    body,
    rest: parser.broken === undefined ? text.slice(start) : '',
    broken: parser.broken?.reason ?? '',
  }
}

const framing = (parser: RequestParser): object => {
  const { head } = parser
  if (head === undefined) return {}
  const found = readFraming(head, readRequestFields(head.fields))
  return 'chunked' in found && found.chunked ? found : {}
}

const isOpen = (parser: RequestParser): boolean =>
  'chunked' in framing(parser) && !parser.complete && parser.broken === undefined

const MESSAGES = [
  'GET /echo?a=b HTTP/1.1\r\nHost: x\r\nEmpty:\r\nSpaces:  in the middle  \t\r\n\r\nGET /next',
  'POST /p/q HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello',
  'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a="b c"\r\nhello\r\n3\r\n 12\r\n0\r\nTrailer: x\r\n\r\nGET /',
  '\r\n\r\nM-SEARCH * HTTP/1.1\r\nHost: x\r\nA: \x80\xff\r\n\r\n',
  'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n',
  `GET / HTTP/1.1\r\n${'A: b\r\n'.repeat(11)}\r\n`,
]

it('a request is the same however its bytes are cut', () => {
  for (const text of MESSAGES) {
    const whole = read(text)
    const cutEverywhere = Array.from({ length: text.length - 1 }, (_, index) => index + 1)
    assert.deepEqual(read(text, cutEverywhere), whole, text)
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: text.length })), (cuts) => {
        assert.deepEqual(
          read(
            text,
            cuts.toSorted((a, b) => a - b),
          ),
          whole,
        )
      }),
      { numRuns: 200 },
    )
  }
  // What it is the same as.
  assert.deepEqual(read(MESSAGES[0] ?? ''), {
    head: JSON.stringify({
      method: 'GET',
      version: 11,
      target: '/echo?a=b',
      fields: ['Host', 'x', 'Empty', '', 'Spaces', 'in the middle  \t'],
      keepAlive: true,
    }),
    body: '',
    rest: 'GET /next',
    broken: '',
  })
  assert.deepEqual(read(MESSAGES[2] ?? '').body, 'hello 12')
  assert.deepEqual(read(MESSAGES[2] ?? '').rest, 'GET /')
  assert.equal(read(MESSAGES[5] ?? '').broken, 'HPE_CR_EXPECTED')
  assert.equal(read(MESSAGES[6] ?? '').broken, 'HPE_STRICT')
  assert.equal(read(MESSAGES[7] ?? '').broken, 'more than 10 header fields')
})

const METHOD_LINE = ['GET ', 'POST ', '/a', ' HTTP/1.1', '\r\n', '\n', '\r', ' ', '\t', '\0', ':']
const FIELDS = [
  'Host: x',
  'Content-Length: 5',
  'Content-Length:',
  'Transfer-Encoding: chunked',
  ',',
  '0',
]
const PIECES = [...METHOD_LINE, ...FIELDS]

it('any bytes: a head, a refusal, or a wish for more, and never more than was given', () => {
  const pieces = fc.constantFrom(...PIECES)
  const bytes = fc.oneof(
    fc.array(pieces).map((parts) => parts.join('')),
    fc.string(),
  )
  fc.assert(
    fc.property(bytes, fc.uniqueArray(fc.integer({ min: 1, max: 200 })), (text, cuts) => {
      const sorted = cuts.toSorted((a, b) => a - b)
      assert.deepEqual(read(text, sorted), read(text))
    }),
    { numRuns: 2_000 },
  )
})

it('chunk extensions and trailers are bounded; extensions of many chunks are not added up', () => {
  const head = 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
  const long = `;${'x'.repeat(17_000)}`
  assert.equal(read(`${head}1${long}\r\na\r\n0\r\n\r\n`).broken, 'HPE_CHUNK_EXTENSIONS_OVERFLOW')
  const trailer = `0\r\n${`T: ${'y'.repeat(100)}\r\n`.repeat(200)}\r\n`
  assert.equal(read(head + trailer).broken, 'HPE_CHUNK_EXTENSIONS_OVERFLOW')
  const chunk = `1;${'x'.repeat(5_000)}\r\na\r\n`
  const many = read(`${head}${chunk.repeat(20)}0\r\n\r\n`)
  assert.deepEqual([many.broken, many.body], ['', 'a'.repeat(20)])
})

it('chunks that came together are taken together, and what comes behind the message stays as it was', () => {
  const parser = new RequestParser(llhttp, LIMITS)
  const head = 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
  const chunks = '1\r\na\r\n2;x=y\r\nbc\r\n'.repeat(300)
  const next = 'GET /next HTTP/1.1\r\n\r\n'
  const bytes = Buffer.from(`${head}${chunks}0\r\nT: 1\r\n\r\n${next}`)
  let at = parser.readHead(bytes, 0, bytes.length)
  const taken: string[] = []
  at = parser.readChunks(bytes, at, bytes.length, (from, start, end) => {
    taken.push(from.latin1Slice(start, end))
  })
  assert.deepEqual(taken, ['abc'.repeat(300)])
  assert.equal(parser.complete, true)
  assert.equal(bytes.toString('latin1', at), next)
})

it('a head above the limit is refused, however it is cut', () => {
  for (const text of [
    `GET /${'x'.repeat(3_000)} HTTP/1.1\r\n\r\n`,
    `GET / HTTP/1.1\r\nA: ${'x'.repeat(3_000)}\r\n\r\n`,
    `GET / HTTP/1.1\r\nA:${' '.repeat(3_000)}x\r\n\r\n`,
    '\r\n'.repeat(2_000),
  ]) {
    for (const cuts of [[], [100, 200, 2_500], [1_999]]) {
      assert.equal(
        read(text, cuts).broken,
        'HPE_HEADER_OVERFLOW',
        JSON.stringify(text.slice(0, 20)),
      )
    }
  }
})

it('a parser is used again: there are as many as were in use at once, and they remember nothing', () => {
  const pool = new ParserPool(llhttp, LIMITS)
  const first = pool.take()
  const broken = Buffer.from(`GET / HTTP/1.1\r\n${'X: 1\r\n'.repeat(9)}X: 1\n`)
  first.readHead(broken, 0, broken.length)
  assert.notEqual(first.broken, undefined)
  pool.give(first)
  const second = pool.take()
  assert.equal(second, first)
  const text = Buffer.from('GET /two HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n')
  assert.equal(second.readHead(text, 0, text.length), text.length)
  assert.deepEqual(second.head, {
    method: 'GET',
    version: 11,
    target: '/two',
    fields: ['Host', 'x', 'A', 'b'],
    keepAlive: true,
  })
})
