import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { test } from 'node:test'
import { promisify } from 'node:util'
import type { Packet } from 'coap-packet'
import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { Fault } from '#shared/fault.ts'
import { coapProxyScope } from '#test/coap-proxy-scope.ts'
import { eventually } from '#test/eventually.ts'
import { optionNumber, optionValue, uriPath } from '#test/raw-coap.ts'
import { LOOPBACKS } from '#test/loopback.ts'

const post = (path: string, payload: string, more: Packet = {}): Packet => ({
  code: 'POST',
  payload: Buffer.from(payload),
  ...more,
  options: [...uriPath(path), ...(more.options ?? [])],
})

const ms = (value: number) => [{ name: 'Uri-Query' as const, value: Buffer.from(`ms=${value}`) }]

test('a confirmable request is answered in its ACK: same id, same token, 2.05, text, on IPv4 and IPv6', async () => {
  await using scope = await coapProxyScope()
  for (const host of LOOPBACKS) {
    const client = await scope.client(host)
    const token = Buffer.from('12345678')
    const messageId = client.send(post('echo', 'hi', { confirmable: true, token }))
    const answer = await client.receive()
    assert.equal(answer.ack, true)
    assert.equal(answer.messageId, messageId)
    assert.ok(answer.token.equals(token))
    assert.equal(answer.code, '2.05')
    assert.equal(optionNumber(answer, 'Content-Format'), 0)
    assert.equal(answer.payload.toString(), 'hi')
    assert.deepEqual(
      answer.options.map((option) => option.name),
      ['Content-Format'],
    )
  }
})

test('a request that is not confirmable gets an answer that is not confirmable', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  client.send(post('echo', 'hi', { confirmable: false }))
  const answer = await client.receive()
  assert.equal(answer.ack || answer.confirmable || answer.reset, false)
  assert.equal(answer.payload.toString(), 'hi')
})

test('every method reaches the function, with path, query, content type and accept', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  for (const code of ['GET', 'POST', 'PUT', 'DELETE', 'FETCH', 'PATCH', 'iPATCH'] as const) {
    const answer = await client.ask({
      code,
      payload: Buffer.from('b'),
      options: [
        ...uriPath('inspect/a b/ü'),
        { name: 'Uri-Query', value: Buffer.from('x=1/2') },
        { name: 'Uri-Query', value: Buffer.from('y=&#') },
        { name: 'Content-Format', value: Buffer.from([60]) },
        { name: 'Accept', value: Buffer.from([50]) },
        { name: 'Uri-Host', value: Buffer.from('node.example') },
        { name: 'ETag', value: Buffer.from([1, 0xab]) },
      ],
    })
    const told: Record<string, unknown> = JSON.parse(answer.payload.toString())
    assert.equal(told['method'], code.toUpperCase())
    assert.equal(told['path'], '/a%20b/%C3%BC')
    assert.equal(told['query'], 'x=1/2&y=%26%23')
    assert.equal(told['body'], 'b')
    assert.equal(told['protocol'], 'coap')
    assert.deepEqual(told['headers'], [
      'host',
      'node.example',
      'if-none-match',
      '"01ab"',
      'content-type',
      'application/cbor',
      'accept',
      'application/json',
    ])
    assert.equal(optionNumber(answer, 'Content-Format'), 50)
  }
})

test('a status becomes its code; content type, etag, max-age and location their options', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const rows: [string, string, string][] = [
    ['status=200', 'GET', '2.05'],
    ['status=200', 'PUT', '2.05'],
    ['status=201', 'POST', '2.01'],
    ['status=204', 'DELETE', '2.02'],
    ['status=204', 'POST', '2.04'],
    ['status=304', 'GET', '2.03'],
    ['status=302', 'GET', '5.02'],
    ['status=404', 'GET', '4.04'],
    ['status=418', 'GET', '4.00'],
    ['status=422', 'GET', '4.22'],
    ['status=429', 'GET', '4.29'],
    ['status=500', 'GET', '5.00'],
    ['status=504', 'GET', '5.04'],
    ['status=599', 'GET', '5.00'],
    ['status=100', 'GET', '5.02'],
  ]
  for (const [query, code, expected] of rows) {
    const options = [
      ...uriPath('status'),
      { name: 'Uri-Query' as const, value: Buffer.from(query) },
    ]
    const answer = await client.ask({ code, options })
    assert.equal(answer.code, expected, `${code} ${query}`)
  }
  const query = [
    'header=content-type=application/json',
    'header=etag="0a0b"',
    'header=cache-control=max-age=7',
    'header=location=/jobs/7?a',
  ]
  const answer = await client.ask({
    code: 'GET',
    options: [
      ...uriPath('status'),
      ...query.map((part) => ({ name: 'Uri-Query' as const, value: Buffer.from(part) })),
    ],
  })
  assert.equal(optionNumber(answer, 'Content-Format'), 50)
  assert.equal(optionValue(answer, 'ETag')?.toString('hex'), '0a0b')
  assert.equal(optionNumber(answer, 'Max-Age'), 7)
  assert.equal(optionValue(answer, 'Location-Path')?.toString(), 'jobs')
  assert.equal(optionValue(answer, 'Location-Query')?.toString(), 'a')
})

test('Accept: a function that names no type answers as asked, one that names another gets 4.06', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const asked = await client.ask(
    post('echo', '{}', { options: [{ name: 'Accept', value: Buffer.from([50]) }] }),
  )
  assert.equal(optionNumber(asked, 'Content-Format'), 50)
  const other = await client.ask(
    post('inspect', '', { options: [{ name: 'Accept', value: Buffer.from([60]) }] }),
  )
  assert.equal(other.code, '4.06')
  const octets = await client.ask({
    code: 'POST',
    payload: Buffer.from([0xff]),
    options: uriPath('echo'),
  })
  assert.equal(optionNumber(octets, 'Content-Format'), 42)
})

test('unknown functions are 4.04 with a payload for people; every fault has its code, and Max-Age when it names a time', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  for (const path of ['nobody', '', 'echoes']) {
    const answer = await client.ask(post(path, 'x'))
    assert.equal(answer.code, '4.04')
    assert.match(answer.payload.toString(), /^FUNCTION_UNKNOWN: /)
    assert.equal(optionNumber(answer, 'Content-Format'), undefined)
  }
  const rows: [string, string, number | undefined][] = [
    ['code=FUNCTION_SATURATED&retryAfterMs=2500', '4.29', 3],
    ['code=FUNCTION_UNAVAILABLE&retryAfterMs=10', '5.03', 1],
    ['code=FUNCTION_UNAVAILABLE', '5.03', undefined],
    ['code=FUNCTION_EXITED', '5.02', undefined],
    ['code=DEADLINE_EXCEEDED', '5.04', undefined],
    ['code=nonsense', '5.00', undefined],
  ]
  for (const [query, code, maxAge] of rows) {
    const options = query
      .split('&')
      .map((part) => ({ name: 'Uri-Query' as const, value: Buffer.from(part) }))
    const answer = await client.ask(post('fault', '', { options }))
    assert.equal(answer.code, code)
    assert.equal(optionNumber(answer, 'Max-Age'), maxAge)
    assert.doesNotMatch(answer.payload.toString(), /secret/)
  }
})

test('a duplicate gets the same answer and does not run the function again; another peer may use the same id', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const messageId = client.send(post('inspect', 'a', { confirmable: true }))
  const first = await client.receiveRaw()
  client.send(post('inspect', 'a', { confirmable: true, messageId }))
  assert.ok((await client.receiveRaw()).equals(first))
  assert.equal(scope.invoker.seen.length, 1)
  const other = await scope.client()
  other.send(post('inspect', 'a', { confirmable: true, messageId }))
  await other.receive()
  assert.equal(scope.invoker.seen.length, 2)
  // Not confirmable: the duplicate is ignored.
  const non = client.send(post('echo', 'n'))
  await client.receive()
  client.send(post('echo', 'n', { messageId: non }))
  await client.silence(100)
  assert.equal(scope.proxy.stats.duplicates, 2)
})

test('a slow function: empty ACK after the delay, then a confirmable response that is sent again until it is acknowledged', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 100, ackTimeoutMs: 200 })
  const client = await scope.client()
  const options = [{ name: 'Uri-Query' as const, value: Buffer.from('ms=400') }]
  const token = Buffer.from('tok')
  const messageId = client.send(post('slow', '', { confirmable: true, token, options }))
  const ack = await client.receive()
  assert.deepEqual([ack.ack, ack.code, ack.messageId], [true, '0.00', messageId])
  client.send(post('slow', '', { confirmable: true, token, options, messageId }))
  assert.equal((await client.receive()).code, '0.00', 'a duplicate gets the empty ACK again')
  const response = await client.receive()
  assert.deepEqual([response.confirmable, response.code], [true, '2.05'])
  assert.ok(response.token.equals(token))
  assert.equal(response.payload.toString(), 'slept')
  const again = await client.receive()
  assert.equal(again.messageId, response.messageId)
  assert.equal(scope.proxy.stats.unacknowledged, 1)
  client.send({ code: '0.00', ack: true, messageId: response.messageId, token: Buffer.alloc(0) })
  await eventually(() => scope.proxy.stats.unacknowledged === 0)
  await client.silence(600)
  assert.equal(scope.invoker.seen.length, 1)
})

test('a response that nobody acknowledges is sent five times, then given up; a Reset ends it at once', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 50, ackTimeoutMs: 20 })
  const client = await scope.client()
  const options = [{ name: 'Uri-Query' as const, value: Buffer.from('ms=200') }]
  client.send(post('slow', '', { confirmable: true, options }))
  await client.receive()
  for (let sent = 0; sent < 5; sent++) assert.equal((await client.receive()).code, '2.05')
  await eventually(() => scope.proxy.stats.unacknowledged === 0)
  await client.silence(200)
  client.send(post('slow', '', { confirmable: true, options }))
  await client.receive()
  const response = await client.receive()
  client.send({ code: '0.00', reset: true, messageId: response.messageId, token: Buffer.alloc(0) })
  await eventually(() => scope.proxy.stats.unacknowledged === 0)
})

test('a Reset while the function works cancels it', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 50 })
  const client = await scope.client()
  const options = [{ name: 'Uri-Query' as const, value: Buffer.from('ms=60000') }]
  const messageId = client.send(post('slow', '', { confirmable: true, options }))
  await client.receive()
  client.send({ code: '0.00', reset: true, messageId, token: Buffer.alloc(0) })
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.stats.inFlight === 0)
  await client.silence(100)
})

test('ping is answered with Reset; so is a response that nobody asked for', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  client.sendRaw(Buffer.from([0x40, 0, 0x12, 0x34]))
  assert.equal((await client.receiveRaw()).toString('hex'), '70001234')
  client.sendRaw(Buffer.from([0x40, 0x45, 0x12, 0x35]))
  assert.equal((await client.receiveRaw()).toString('hex'), '70001235')
  for (const silent of ['50001234', '50451234', '60001234', '70001234', '60451234']) {
    client.sendRaw(Buffer.from(silent, 'hex'))
  }
  await client.silence(100)
})

test('options: unknown critical ones are 4.02, unknown elective ones nothing; a NON with one is rejected; a proxy request is 5.05', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const bad = { name: '65001', value: Buffer.from('x') }
  assert.equal((await client.ask(post('echo', 'x', { options: [bad] }))).code, '4.02')
  const elective = { name: '65000', value: Buffer.from('x') }
  assert.equal((await client.ask(post('echo', 'x', { options: [elective] }))).code, '2.05')
  client.send(post('echo', 'x', { options: [bad] }))
  assert.equal((await client.receive()).reset, true)
  const rows: [string, Buffer, string][] = [
    ['Proxy-Uri', Buffer.from('coap://x/'), '5.05'],
    ['Proxy-Scheme', Buffer.from('http'), '5.05'],
    ['If-None-Match', Buffer.from('x'), '4.02'],
    ['Accept', Buffer.alloc(3), '4.02'],
    ['Uri-Path', Buffer.from('..'), '4.00'],
    ['Uri-Path', Buffer.from([0xff]), '4.00'],
    ['Uri-Query', Buffer.from([0xff]), '4.00'],
    ['Block1', Buffer.from([7]), '4.00'],
    ['Content-Format', Buffer.alloc(3), '2.05'],
    ['Observe', Buffer.alloc(0), '2.05'],
  ]
  for (const [name, value, code] of rows) {
    const answer = await client.ask(post('echo', 'x', { options: [{ name, value }] }))
    assert.equal(answer.code, code, `${name} ${value.toString('hex')}`)
  }
  client.sendRaw(Buffer.from('40081236', 'hex'))
  assert.equal((await client.receive()).code, '4.05')
})

test('No-Response: a caller that wants no answer of a class gets none, only the ACK when confirmable', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const options = [{ name: 'No-Response' as const, value: Buffer.from([2]) }]
  client.send(post('echo', 'x', { options }))
  await client.silence(50)
  client.send(post('echo', 'x', { confirmable: true, options }))
  assert.equal((await client.receive()).code, '0.00')
  assert.equal((await client.ask(post('nobody', 'x', { options }))).code, '4.04')
})

test('/.well-known/core lists the functions, and filters them by href', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const ask = (...queries: string[]) =>
    client.ask({
      code: 'GET',
      options: [
        ...uriPath('.well-known/core'),
        ...queries.map((query) => ({ name: 'Uri-Query' as const, value: Buffer.from(query) })),
      ],
    })
  const all = await ask()
  assert.equal(optionNumber(all, 'Content-Format'), 40)
  assert.match(all.payload.toString(), /<\/echo>;rt="shoal.function",.*<\/site\/a\/b\/echo>/)
  assert.equal((await ask('href=/echo')).payload.toString(), '</echo>;rt="shoal.function"')
  assert.match(
    (await ask('href=/si*')).payload.toString(),
    /^<\/sip>[^,]*,<\/site\/a\/b\/echo>[^,]*$/,
  )
  assert.equal((await ask('title=x')).payload.toString(), '')
  assert.equal(
    (await client.ask({ code: 'POST', options: uriPath('.well-known/core') })).code,
    '4.05',
  )
})

test('a port that is taken is named, with the setting that changes it', async () => {
  const other = createSocket({ type: 'udp6' })
  other.bind(0, '::')
  await once(other, 'listening')
  const { port } = other.address()
  await assert.rejects(coapProxyScope({ port }), (error: unknown) => {
    assert.ok(Fault.is(error, 'PORT_TAKEN'))
    assert.match(error.message, new RegExp(`port ${port} .*SHOAL_COAP_PORT`))
    return true
  })
  other.close()
})

test('close: calls in flight finish, new ones get 5.03, what is not done in time is answered 5.03 and cancelled', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 60_000 })
  const client = await scope.client()
  const done = client.send(post('slow', '', { confirmable: true, options: ms(1_500) }))
  const late = client.send(post('slow', '', { confirmable: true, options: ms(60_000) }))
  await eventually(() => scope.invoker.running === 2)
  const { port } = scope.proxy
  const closed = scope.proxy.close(4_000)
  const refused = await client.ask(post('echo', 'x'))
  assert.equal(refused.code, '5.03')
  const first = await client.receive(10_000)
  assert.deepEqual([first.messageId, first.payload.toString()], [done, 'slept'])
  const second = await client.receive(10_000)
  assert.deepEqual([second.messageId, second.code], [late, '5.03'])
  await closed
  await scope.invoker.aborted()
  const again = await CoapProxy.listen({
    host: '::',
    port,
    invoker: scope.invoker,
    bodyBytesMax: 1000,
    log: scope.log,
  })
  await again.close()
})

/** UDP over IP by hand, because no socket sends from port 0: source port, destination port, length, no checksum, then a request. */
const FROM_PORT_0 = `
import socket, struct, sys
request = bytes.fromhex('40010001b46563686f')
header = struct.pack('!HHHH', 0, int(sys.argv[1]), 8 + len(request), 0)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
    raw.sendto(header + request, ('127.0.0.1', 0))
`

test(
  'a datagram from port 0, to which nothing can be sent, is ignored',
  { skip: process.getuid?.() !== 0 && 'raw sockets are for root' },
  async () => {
    await using scope = await coapProxyScope()
    await promisify(execFile)('python3', ['-c', FROM_PORT_0, String(scope.proxy.port)])
    await eventually(() => scope.proxy.stats.ignored === 1)
    const client = await scope.client()
    assert.equal((await client.ask(post('echo', 'hi'))).payload.toString(), 'hi')
  },
)
