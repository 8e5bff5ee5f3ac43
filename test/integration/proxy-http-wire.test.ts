import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { test } from 'node:test'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { Fault } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { RawTcp } from '#test/raw-tcp.ts'

// What reaches the wire, byte by byte: clients that no HTTP library lets one be.

const post = (body: string, more = '') =>
  `POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n${more}\r\n${body}`

test('pipelined requests are answered in order, slow ones first', async () => {
  await using scope = await httpProxyScope()
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write(`GET /slow?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n${post('one')}${post('two')}`)
  const text = await raw.until(/two$/)
  assert.match(text, /slept.*\r\n\r\none.*\r\n\r\ntwo$/s)
  raw.write(post('three'))
  await raw.until(/three$/)
})

test('a request that arrives byte by byte is served like any other', async () => {
  await using scope = await httpProxyScope()
  using raw = await RawTcp.connect(scope.proxy.port)
  for (const char of post('slowly')) {
    raw.write(char)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await raw.until(/slowly$/)
})

test('HTTP/1.0: an answer, its end, and no chunks; keep-alive when it asks for it', async () => {
  await using scope = await httpProxyScope()
  using plain = await RawTcp.connect(scope.proxy.port)
  plain.write('POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi')
  assert.match(await plain.rest(), /^HTTP\/1\.1 200 OK\r\n.*\r\n\r\nhi$/s)
  using stream = await RawTcp.connect(scope.proxy.port)
  stream.write('GET /pieces HTTP/1.0\r\n\r\n')
  const text = await stream.rest()
  assert.match(text, /\r\n\r\n000001111122222$/)
  assert.doesNotMatch(text, /transfer-encoding/i)
  using kept = await RawTcp.connect(scope.proxy.port)
  for (const body of ['aa', 'bb']) {
    kept.write(`POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n${body}`)
    await kept.until(new RegExp(`${body}$`))
  }
})

test('Expect: 100-continue is answered before the body when the body is wanted, and refused without it when not', async () => {
  await using scope = await httpProxyScope({ bodyBytesMax: 1000 })
  using wanted = await RawTcp.connect(scope.proxy.port)
  wanted.write(
    'POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
  )
  await wanted.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  wanted.write('body')
  await wanted.until(/200 OK.*\r\n\r\nbody$/s)
  for (const [path, length, status] of [
    ['/nobody', 4, 404],
    ['/echo', 1001, 413],
  ] as const) {
    using refused = await RawTcp.connect(scope.proxy.port)
    refused.write(
      `POST ${path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`,
    )
    const text = await refused.rest()
    assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} `))
    assert.doesNotMatch(text, /100 Continue/)
  }
})

test('a target in absolute form is understood; an upgrade is answered as the request it also is', async () => {
  await using scope = await httpProxyScope()
  using absolute = await RawTcp.connect(scope.proxy.port)
  absolute.write('GET http://some.host:80/inspect/p?q HTTP/1.1\r\nHost: some.host\r\n\r\n')
  await absolute.until(/"path":"\/p","query":"q"/)
  using upgrade = await RawTcp.connect(scope.proxy.port)
  upgrade.write(
    'GET /inspect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\nX-Hop: 1\r\nX-Kept: 2\r\n\r\n',
  )
  const text = await upgrade.until(/"headers":\[[^\]]*\]/)
  assert.match(text, /"headers":\["host","x","x-kept","2"\]/)
  using star = await RawTcp.connect(scope.proxy.port)
  star.write('OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n')
  await star.until(/^HTTP\/1\.1 404 /)
  using tunnel = await RawTcp.connect(scope.proxy.port)
  tunnel.write('CONNECT echo:80 HTTP/1.1\r\nHost: x\r\n\r\n')
  assert.doesNotMatch(await tunnel.rest(), /200/)
})

test('requests whose end two readers could see at different places are refused with 400 and the connection ends', async () => {
  await using scope = await httpProxyScope()
  const smuggled = 'GET /inspect HTTP/1.1\r\nHost: x\r\n\r\n'
  const rows: [string, string][] = [
    ['CL and TE', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['TE and CL', 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n'],
    ['two lengths', `Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!`],
    ['a list of lengths', 'Content-Length: 5, 5\r\n\r\nhello'],
    ['a length that is no number', 'Content-Length: +5\r\n\r\nhello'],
    ['a negative length', 'Content-Length: -5\r\n\r\nhello'],
    ['chunked not last', 'Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n'],
    ['an unknown coding', 'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n'],
    [
      'a chunk size that is no number',
      'Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n',
    ],
    ['a chunk longer than said', 'Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n'],
    [
      'a huge chunk size',
      'Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n',
    ],
    ['a space before the colon', 'Content-Length : 5\r\n\r\nhello'],
    ['a folded field', 'X-A: 1\r\n Content-Length: 5\r\n\r\n'],
    ['a bare line feed', 'X-A: 1\nContent-Length: 5\r\n\r\nhello'],
    ['a zero byte', 'X-A: a\0b\r\n\r\n'],
  ]
  for (const [name, tail] of rows) {
    using raw = await RawTcp.connect(scope.proxy.port)
    raw.write(`POST /echo HTTP/1.1\r\nHost: x\r\n${tail}${smuggled}`)
    const text = await raw.rest()
    assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/, `${name}: ${text}`)
    assert.match(text, /"code":"REQUEST_INVALID"/, name)
    assert.equal(text.split('HTTP/1.1 ').length, 2, `${name}: one answer`)
  }
  assert.equal(
    scope.invoker.seen.some((call) => call.invocation.fn === 'inspect'),
    false,
  )
})

test('a header that is too large or has too many fields is refused, and one without Host', async () => {
  await using scope = await httpProxyScope({ headerBytesMax: 8192, headerFieldsMax: 50 })
  const rows: [string, RegExp][] = [
    [`GET /echo HTTP/1.1\r\nHost: x\r\nA: ${'a'.repeat(9000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
    [`GET /echo?${'a'.repeat(9000)} HTTP/1.1\r\nHost: x\r\n\r\n`, /^HTTP\/1\.1 431 /],
    [`GET /echo HTTP/1.1\r\n${'A: b\r\n'.repeat(51)}\r\n`, /^HTTP\/1\.1 400 /],
    [`GET /echo HTTP/1.1\r\nHost: x\r\n${'A: b\r\n'.repeat(600)}\r\n`, /^HTTP\/1\.1 4(00|31) /],
    ['GET /echo HTTP/1.1\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['nonsense\r\n\r\n', /^HTTP\/1\.1 400 /],
  ]
  for (const [request, expected] of rows) {
    using raw = await RawTcp.connect(scope.proxy.port)
    raw.write(request)
    await raw.until(expected)
  }
  using most = await RawTcp.connect(scope.proxy.port)
  most.write(`GET /echo HTTP/1.1\r\nHost: x\r\n${'A: b\r\n'.repeat(49)}\r\n`)
  await most.until(/^HTTP\/1\.1 200 /)
})

test('a header that never ends, and a connection that stays idle, are closed', async () => {
  await using scope = await httpProxyScope({ headerTimeoutMs: 200, idleTimeoutMs: 200 })
  using slow = await RawTcp.connect(scope.proxy.port)
  slow.write('GET /echo HTTP/1.1\r\nHost: x\r\nX-')
  assert.match(await slow.rest(), /^HTTP\/1\.1 408 /)
  using idle = await RawTcp.connect(scope.proxy.port)
  idle.write(post('once'))
  assert.match(await idle.rest(), /once$/)
})

test('connections above the limit are answered 503 and closed, and a free place is used again', async () => {
  await using scope = await httpProxyScope({ connectionsMax: 2 })
  const first = await RawTcp.connect(scope.proxy.port)
  using second = await RawTcp.connect(scope.proxy.port)
  second.write(post('in'))
  await second.until(/in$/)
  using third = await RawTcp.connect(scope.proxy.port)
  third.write(post('no room'))
  const refused = await third.rest()
  assert.match(refused, /^HTTP\/1\.1 503 .*\r\nretry-after: 1\r\n.*FUNCTION_UNAVAILABLE/s)
  // Without a word when there are too many of them to talk to.
  const crowd = Array.from({ length: 100 }, () =>
    connect({ port: scope.proxy.port, host: '127.0.0.1', allowHalfOpen: true }),
  )
  const told = await Promise.all(
    crowd.map(async (socket) => {
      let text = ''
      socket.on('data', (bytes) => (text += bytes.toString('latin1')))
      await once(socket, 'end')
      return text
    }),
  )
  for (const socket of crowd) socket.destroy()
  const answered = told.filter((text) => text !== '')
  assert.ok(answered.length > 0 && answered.length < told.length, `${answered.length} told why`)
  assert.ok(answered.every((text) => text.startsWith('HTTP/1.1 503 ')))
  first[Symbol.dispose]()
  await eventually(async () => {
    using again = await RawTcp.connect(scope.proxy.port)
    again.write(post('free'))
    return (await again.until(/free$/, 500)) !== ''
  })
})

test('a refused upload is read away up to a limit, so that the caller sees the answer and the connection goes on', async () => {
  await using scope = await httpProxyScope({ bodyBytesMax: 100_000 })
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write(
    `POST /nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n${'x'.repeat(90_000)}`,
  )
  await raw.until(/^HTTP\/1\.1 404 /)
  raw.write(post('next'))
  await raw.until(/next$/)
  using endless = await RawTcp.connect(scope.proxy.port)
  endless.write('POST /nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n')
  await endless.until(/^HTTP\/1\.1 404 /)
  endless.write('x'.repeat(1_000_000))
  await endless.rest()
})

test('a port that is taken is named, with the setting that changes it', async () => {
  const other = createServer().listen(0, '::')
  await once(other, 'listening')
  const address = other.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  await assert.rejects(httpProxyScope({ port }), (error: unknown) => {
    assert.ok(Fault.is(error, 'PORT_TAKEN'))
    assert.match(error.message, new RegExp(`port ${port} .*SHOAL_HTTP_PORT`))
    assert.equal(error.details['setting'], 'SHOAL_HTTP_PORT')
    return true
  })
  other.close()
})

test('close: calls in flight finish and end their connection, no new call starts, and the port is free afterwards', async () => {
  await using scope = await httpProxyScope()
  const { proxy } = scope
  using busy = await RawTcp.connect(proxy.port)
  busy.write('GET /slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n')
  await eventually(() => scope.invoker.running === 1)
  const { port } = proxy
  const closed = proxy.close(5_000)
  busy.write(post('late'))
  const text = await busy.rest()
  assert.match(text, /connection: close.*slept$/is)
  assert.equal(scope.invoker.seen.length, 1)
  await closed
  await proxy.close()
  const again = await HttpProxy.listen({
    host: '::',
    port,
    invoker: scope.invoker,
    bodyBytesMax: 1000,
    log: scope.log,
  })
  await again.close()
})

test('close cancels what is not done within the drain time', async () => {
  await using scope = await httpProxyScope()
  using busy = await RawTcp.connect(scope.proxy.port)
  busy.write('GET /slow?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n')
  await eventually(() => scope.invoker.running === 1)
  const startedMs = performance.now()
  await scope.proxy.close(100)
  assert.ok(performance.now() - startedMs < 10_000)
  assert.match(await busy.rest(), /^HTTP\/1\.1 503 .*SHUTTING_DOWN/s)
  assert.equal((await scope.invoker.aborted()).reason instanceof Fault, true)
})
