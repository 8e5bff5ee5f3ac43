import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import * as fc from 'fast-check'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { patterned } from '#test/invoker.ts'
import { RawTcp } from '#test/raw-tcp.ts'

// What a front that reads sockets by itself must get right: cuts, order, ends, and peers that do not play along.

const post = (body: string, more = '') =>
  `POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n${more}\r\n${body}`
const chunked = (chunks: string) =>
  `POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`
/** The bodies of the answers in `text`, all of which have a length. */
const bodies = (text: string) =>
  text.split(/HTTP\/1\.1 200 OK\r\n/).flatMap((part) => part.split('\r\n\r\n').slice(1))

test('what no two readers could agree on is refused with 400 and the connection ends', async () => {
  await using scope = await httpProxyScope()
  const rows: [string, string][] = [
    ['a coding before chunked', 'Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n'],
    ['two codings', 'Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['chunked twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['chunked in a list', 'Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n'],
    ['chunked in quotes', 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'],
    ['chunked behind a tab', 'Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n'],
    ['a coding of nothing', 'Transfer-Encoding:\r\n\r\n0\r\n\r\n'],
    ['a name that is nearly right', 'Transfer-Encoding\0: chunked\r\n\r\n0\r\n\r\n'],
    ['the same length twice', 'Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello'],
    ['a length of nothing', 'Content-Length:\r\n\r\n'],
    ['a length in hex', 'Content-Length: 0x5\r\n\r\nhello'],
    ['a length with an exponent', 'Content-Length: 1e1\r\n\r\nhello'],
    ['a length beyond all numbers', 'Content-Length: 99999999999999999999\r\n\r\nhello'],
    ['a length and chunks', 'Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a second host', 'Host: y\r\n\r\n'],
    ['a field that starts with a space', ' X: 1\r\n\r\n'],
    ['a field without a colon', 'nonsense\r\n\r\n'],
    ['a field without a name', ': 1\r\n\r\n'],
    ['a name with a space in it', 'X Y: 1\r\n\r\n'],
    ['a name with a letter beyond ASCII', 'X\xe9: 1\r\n\r\n'],
    ['a bare carriage return', 'X: a\rContent-Length: 5\r\n\r\nhello'],
    ['a bare line feed behind the header', 'X: a\r\n\nGET /inspect HTTP/1.1\r\n\r\n'],
    ['a delete character', 'X: a\x7fb\r\n\r\n'],
    ['a chunk size with a sign', 'Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n'],
    ['a chunk size in hex notation', 'Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n'],
    ['a chunk size behind a space', 'Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n'],
    ['a chunk size before a space', 'Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n'],
    ['a chunk size that is missing', 'Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n'],
    [
      'a chunk size with a bare line feed',
      'Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n',
    ],
    [
      'a chunk that ends in a bare line feed',
      'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n',
    ],
    [
      'a line feed in an extension',
      'Transfer-Encoding: chunked\r\n\r\n5;a\n\r\nhello\r\n0\r\n\r\n',
    ],
    ['a bad trailer', 'Transfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n'],
    [
      'an endless extension',
      `Transfer-Encoding: chunked\r\n\r\n5;${'x'.repeat(40_000)}\r\nhello\r\n0\r\n\r\n`,
    ],
  ]
  for (const [name, tail] of rows) {
    using raw = await RawTcp.connect(scope.proxy.port)
    raw.write(
      Buffer.from(
        `POST /echo HTTP/1.1\r\nHost: x\r\n${tail}GET /inspect HTTP/1.1\r\nHost: x\r\n\r\n`,
        'latin1',
      ),
    )
    const text = await raw.rest()
    assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/, `${name}: ${text}`)
    assert.match(text, /\r\nConnection: close\r\n/, name)
    assert.match(text, /"code":"REQUEST_INVALID"/, name)
    assert.equal(text.split('HTTP/1.1 ').length, 2, `${name}: one answer`)
  }
  const inspected = scope.invoker.seen.filter(({ invocation }) => invocation.fn === 'inspect')
  assert.deepEqual(inspected, [])
})

test('request lines that are not HTTP/1, or not for a function, are refused and the connection ends', async () => {
  await using scope = await httpProxyScope()
  const rows: [string, number][] = [
    ['POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['GET /echo HTTP/2.0\r\nHost: x\r\n\r\n', 400],
    ['GET /echo HTTP/1.2\r\nHost: x\r\n\r\n', 400],
    ['GET /echo\r\n\r\n', 400],
    ['get /echo HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['SETUP /echo RTSP/1.0\r\n\r\n', 400],
    ['GET /ec ho HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['GET /\x80 HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['GET echo HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['CONNECT echo:80 HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['\x16\x03\x01\x02\0\x01', 400],
    ['GET /echo HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n', 417],
  ]
  for (const [request, status] of rows) {
    using raw = await RawTcp.connect(scope.proxy.port)
    raw.write(Buffer.from(request, 'latin1'))
    const text = await raw.rest()
    assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} `), request)
    assert.match(text, /"code":"REQUEST_INVALID"/, request)
  }
  assert.deepEqual(scope.invoker.seen, [])
})

test('requests are the same however the bytes of a connection are cut', async () => {
  await using scope = await httpProxyScope()
  const stream =
    post('one') +
    chunked('3\r\ntwo\r\n0\r\n\r\n') +
    'GET /echo HTTP/1.1\r\nHost: x\r\n\r\n' +
    post('four', 'Expect: 100-continue\r\n').replace('HTTP/1.1', 'HTTP/1.1') +
    post('last', 'Connection: close\r\n')
  const cuts = fc.uniqueArray(fc.integer({ min: 1, max: stream.length - 1 }), { maxLength: 12 })
  await fc.assert(
    fc.asyncProperty(cuts, async (places) => {
      using raw = await RawTcp.connect(scope.proxy.port)
      raw.socket.setNoDelay(true)
      let start = 0
      for (const end of [...places.toSorted((a, b) => a - b), stream.length]) {
        raw.write(stream.slice(start, end))
        start = end
        await new Promise((resolve) => setImmediate(resolve))
      }
      const text = (await raw.rest()).replace('HTTP/1.1 100 Continue\r\n\r\n', '')
      assert.deepEqual(bodies(text), ['one', 'two', '', 'four', 'last'])
    }),
    { numRuns: 60 },
  )
})

test('a peer that pipelines without reading is read no further, and gets all of its answers in the end', async () => {
  await using scope = await httpProxyScope()
  const socket = connect({ port: scope.proxy.port, host: '127.0.0.1' })
  await once(socket, 'connect')
  const requests = 2_000
  const get = 'GET /bytes?bytes=50000 HTTP/1.1\r\nHost: x\r\n\r\n'
  socket.pause()
  socket.write(get.repeat(requests - 1) + get.replace('Host', 'Connection: close\r\nHost'))
  await sleep(500)
  const started = scope.invoker.seen.length
  assert.ok(started > 1 && started < 500, `${started} calls for a peer that reads nothing`)
  let bytes = 0
  socket.on('data', (chunk) => (bytes += chunk.length)).resume()
  await once(socket, 'close')
  assert.equal(scope.invoker.seen.length, requests)
  assert.ok(bytes > requests * 50_000)
})

test('one call at a time: what a connection sends behind a request waits for its answer', async () => {
  await using scope = await httpProxyScope()
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write('GET /slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n')
  await eventually(() => scope.invoker.running === 1)
  raw.write(post('behind'))
  await sleep(100)
  assert.equal(scope.invoker.seen.length, 1)
  assert.deepEqual(bodies(await raw.until(/behind$/)), ['slept', 'behind'])
})

test('chunks, extensions and a trailer: the function gets the body and nothing else', async () => {
  await using scope = await httpProxyScope()
  using raw = await RawTcp.connect(scope.proxy.port)
  for (const chunks of [
    '5;a=1;b="two words"\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Trailer: secret\r\n\r\n',
    '00000b\r\nhello world\r\n000\r\n\r\n',
  ]) {
    const answers = bodies(raw.text).length
    raw.write(chunked(chunks).replace('/echo', '/inspect'))
    await eventually(() => bodies(raw.text).length === answers + 1)
    const told: { body: string; headers: string[] } = JSON.parse(bodies(raw.text).at(-1) ?? '')
    assert.deepEqual(told.body, 'hello world')
    assert.deepEqual(told.headers, ['host', 'x'])
  }
})

test('Expect: 100-continue with chunks, with the body already there, without a body, and in HTTP/1.0', async () => {
  await using scope = await httpProxyScope()
  const expect = 'Expect: 100-continue\r\n'
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write(chunked('').replace('\r\n\r\n', `\r\n${expect}\r\n`))
  await raw.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  raw.write('2\r\nhi\r\n0\r\n\r\n')
  await raw.until(/\r\n\r\nhi$/)
  raw.write(post('there', expect))
  await raw.until(/100 Continue\r\n\r\nHTTP\/1\.1 200 .*there$/s)
  const before = raw.text.length
  raw.write(`GET /echo HTTP/1.1\r\nHost: x\r\n${expect}\r\n`)
  await eventually(() => raw.text.length > before)
  assert.doesNotMatch(raw.text.slice(before), /100 Continue/)
  using old = await RawTcp.connect(scope.proxy.port)
  old.write(`POST /echo HTTP/1.0\r\n${expect}Content-Length: 3\r\n\r\nold`)
  assert.match(await old.rest(), /^HTTP\/1\.1 200 OK\r\n.*old$/s)
})

test('a peer that ends its side after the request still gets its answer; one that has gone makes the call end', async () => {
  await using scope = await httpProxyScope()
  using half = await RawTcp.connect(scope.proxy.port)
  half.socket.allowHalfOpen = true
  half.socket.end('GET /slow?ms=400 HTTP/1.1\r\nHost: x\r\n\r\n')
  const text = await half.rest()
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n.*Connection: close\r\n\r\nslept$/s)

  const gone = await RawTcp.connect(scope.proxy.port)
  gone.write('GET /slow?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n')
  await eventually(() => scope.invoker.running === 1)
  gone[Symbol.dispose]()
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.inFlight === 0)
})

test('a peer that ends inside a header is told so; inside a body its call ends', async () => {
  await using scope = await httpProxyScope()
  using header = await RawTcp.connect(scope.proxy.port)
  header.socket.allowHalfOpen = true
  header.socket.end('GET /echo HTTP/1.1\r\nHost')
  assert.match(await header.rest(), /^HTTP\/1\.1 400 .*HPE_INVALID_EOF_STATE/s)
  for (const request of [
    'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhello',
    chunked('5\r\nhello\r\n'),
  ]) {
    const seen = scope.invoker.seen.length
    using body = await RawTcp.connect(scope.proxy.port)
    body.write(request)
    await eventually(() => scope.invoker.seen.length === seen + 1)
    body.socket.end()
    await scope.invoker.aborted()
    assert.equal(await body.rest(), '')
  }
  using small = await RawTcp.connect(scope.proxy.port)
  const seen = scope.invoker.seen.length
  small.socket.end('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello')
  assert.equal(await small.rest(), '')
  assert.equal(scope.invoker.seen.length, seen, 'half a body is no call')
})

test('a peer that goes inside its answer makes the call end, and nothing is left of it', async () => {
  await using scope = await httpProxyScope()
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write('GET /pieces?count=100000&bytes=60000 HTTP/1.1\r\nHost: x\r\n\r\n')
  await raw.until(/\r\n\r\n/)
  raw.socket.resetAndDestroy()
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.inFlight === 0)
})

test('a request that takes too long is 408, whether its body is awaited whole or in pieces', async () => {
  await using scope = await httpProxyScope({ requestTimeoutMs: 200 })
  for (const request of [
    'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello',
    'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhello',
    chunked('5\r\nhello\r\n'),
  ]) {
    using raw = await RawTcp.connect(scope.proxy.port)
    raw.write(request)
    assert.match(await raw.rest(), /^HTTP\/1\.1 408 .*Connection: close/s)
  }
  await eventually(() => scope.invoker.running === 0)
})

test('a header that trickles in is cut off although bytes keep coming, and so are empty lines', async () => {
  await using scope = await httpProxyScope({ headerTimeoutMs: 300 })
  for (const [start, drop] of [
    ['GET /echo HTTP/1.1\r\nX: ', 'X'],
    ['\r\n', '\r\n'],
  ] as const) {
    using raw = await RawTcp.connect(scope.proxy.port)
    raw.write(start)
    const trickle = setInterval(() => raw.write(drop), 20)
    try {
      assert.match(await raw.rest(), /^HTTP\/1\.1 408 /)
    } finally {
      clearInterval(trickle)
    }
  }
})

test('a peer that takes nothing of its answer is cut off, one that is slow is not', async () => {
  await using scope = await httpProxyScope({ requestTimeoutMs: 2_000 })
  const get = 'GET /pieces?count=4000&bytes=65536 HTTP/1.1\r\nHost: x\r\n\r\n'
  const stuck = connect({ port: scope.proxy.port, host: '127.0.0.1' })
  stuck.on('error', () => undefined)
  stuck.pause()
  stuck.write(get)
  const askedMs = performance.now()
  await eventually(() => scope.proxy.inFlight === 1)
  await scope.invoker.aborted()
  assert.ok(performance.now() - askedMs >= 2_000, 'and not before')
  stuck.destroy()
  const slow = connect({ port: scope.proxy.port, host: '127.0.0.1' })
  slow.write(get)
  let bytes = 0
  for (const startedMs = performance.now(); performance.now() < startedMs + 5_000; await sleep(4)) {
    const chunk: Buffer | null = slow.read()
    bytes += chunk?.length ?? 0
  }
  assert.ok(bytes > 5_000_000 && bytes < 200_000_000, `${bytes} bytes in 5 s`)
  assert.equal(scope.proxy.inFlight, 1, 'still being sent')
  slow.destroy()
  await eventually(() => scope.proxy.inFlight === 0)
})

function memoryBytes(): number {
  const { heapUsed, external, arrayBuffers } = process.memoryUsage()
  return heapUsed + external + arrayBuffers
}

test('thousands of idle connections take little memory each, and are closed with the proxy', async () => {
  await using scope = await httpProxyScope()
  const count = 2_000
  const warm = await RawTcp.connect(scope.proxy.port)
  warm.write(post('warm'))
  await warm.until(/warm$/)
  const before = memoryBytes()
  const all = await Promise.all(
    Array.from({ length: count }, () => RawTcp.connect(scope.proxy.port)),
  )
  // Half of them have been used, and half of those stopped inside a header.
  for (const [index, raw] of all.entries()) {
    if (index % 2 === 0) raw.write(post('used') + (index % 4 === 0 ? 'GET /ec' : ''))
  }
  await eventually(() => all.every((raw, index) => index % 2 === 1 || raw.text.endsWith('used')), {
    timeoutMs: 20_000,
  })
  // Both ends are in this process, and nothing has been collected: an upper bound.
  const each = (memoryBytes() - before) / count
  assert.ok(each < 40_000, `${each} bytes per connection`)
  for (const raw of [warm, ...all]) raw[Symbol.dispose]()
})

test('a body that goes straight from the socket to its reader keeps every byte, whatever the sizes', async () => {
  await using scope = await httpProxyScope({ bodyBytesMax: 4_000_000 })
  const sizes = fc.integer({ min: 1, max: 300_000 })
  const pieces = fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1, maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(sizes, pieces, async (bytes, steps) => {
      const body = patterned(bytes)
      const socket = connect({ port: scope.proxy.port, host: '127.0.0.1' })
      socket.setNoDelay(true)
      const chunks: Buffer[] = []
      socket.on('data', (chunk) => chunks.push(chunk))
      socket.write(
        `POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${bytes}\r\n\r\n`,
      )
      for (let at = 0, turn = 0; at < bytes; turn++) {
        const end = at + (steps[turn % steps.length] ?? bytes)
        socket.write(body.subarray(at, end))
        at = end
        await new Promise((resolve) => setImmediate(resolve))
      }
      await once(socket, 'close')
      const answer = Buffer.concat(chunks)
      const start = answer.indexOf('\r\n\r\n') + 4
      assert.ok(answer.subarray(start).equals(body), `${bytes} bytes`)
    }),
    { numRuns: 40 },
  )
})
