import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deflateSync, gzipSync } from 'node:zlib'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  InvokeResponseSchema,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from '#proto/index.ts'
import { eventually } from '#test/eventually.ts'
import {
  grpcFrame,
  http2Call,
  type Http2Answer,
  http2Client,
  INVOKE,
  INVOKE_STREAM,
  invokeMessage,
} from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { patterned, produced } from '#test/invoker.ts'

const ECHO = grpcFrame(invokeMessage('echo', 'hello'))

/** The payload of an `InvokeResponse`. */
function payloadOf({ body }: Http2Answer): string {
  return Buffer.from(fromBinary(InvokeResponseSchema, body.subarray(5)).payload).toString()
}

test('requests that are no gRPC call: wrong method, content type or path', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  const get = await http2Call(client, { ':method': 'GET' })
  assert.deepEqual([get.status, get.fields['allow'], get.code], [405, 'POST', -1])
  for (const type of ['application/json', 'application/grpc-web', 'application/grpc+json']) {
    const other = await http2Call(client, { 'content-type': type }, [ECHO])
    assert.deepEqual([other.status, other.code], [415, -1], type)
  }
  for (const path of ['/shoal.v1.Functions/Nothing', '/nothing/Invoke', '/', '/a%20b']) {
    const unknown = await http2Call(client, { ':path': path }, [ECHO])
    assert.deepEqual([unknown.status, unknown.code, unknown.trailersOnly], [200, 12, true], path)
    assert.ok(unknown.message.includes(path))
  }
  assert.equal(scope.invoker.seen.length, 0)
})

test('compression of requests: identity, gzip and deflate, others are UNIMPLEMENTED; what unpacks to too much is refused', async () => {
  await using scope = await grpcProxyScope({ bodyBytesMax: 200_000 })
  await using client = await http2Client(scope.proxy.port)
  const message = invokeMessage('echo', 'x'.repeat(1_000))
  const rows: [string | undefined, Buffer, number][] = [
    [undefined, grpcFrame(message), 0],
    ['identity', grpcFrame(message), 0],
    ['gzip', grpcFrame(gzipSync(message), 1), 0],
    ['gzip', grpcFrame(message), 0],
    ['deflate', grpcFrame(deflateSync(message), 1), 0],
    ['gzip', grpcFrame(message, 1), 13],
    ['identity', grpcFrame(message, 1), 13],
    [undefined, grpcFrame(gzipSync(message), 1), 13],
    ['gzip', grpcFrame(gzipSync(invokeMessage('echo', Buffer.alloc(50_000_000))), 1), 8],
    ['snappy', grpcFrame(message, 1), 12],
  ]
  for (const [encoding, frame, code] of rows) {
    const headers = encoding === undefined ? {} : { 'grpc-encoding': encoding }
    const answer = await http2Call(client, headers, [frame])
    const what = `${encoding} ${frame[0]}`
    assert.equal(answer.code, code, `${what}: ${answer.message}`)
    // Told before it has been unpacked to the end.
    if (code === 8) assert.match(answer.message, /when unpacked/)
    if (code === 0) assert.equal(payloadOf(answer), 'x'.repeat(1_000), what)
    const known = code === 12 ? 'identity,deflate,gzip' : undefined
    assert.equal(answer.fields['grpc-accept-encoding'], known, what)
  }
  const answered = rows.filter(([, , code]) => code === 0)
  assert.equal(scope.invoker.seen.length, answered.length)
})

/** A question of reflection; its host comes back in the answer. */
function questionOf(host: string): Buffer {
  const message = create(ServerReflectionRequestSchema, {
    host,
    messageRequest: { case: 'listServices', value: '' },
  })
  return Buffer.from(toBinary(ServerReflectionRequestSchema, message))
}

test('a stream of compressed and plain messages is answered in its order', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  const body = ['a', 'b', 'c', 'd', 'e'].map((host, at) =>
    at % 2 === 0 ? grpcFrame(gzipSync(questionOf(host)), 1) : grpcFrame(questionOf(host)),
  )
  const headers = {
    ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    'grpc-encoding': 'gzip',
  }
  const answer = await http2Call(client, headers, [Buffer.concat(body)])
  assert.equal(answer.code, 0, answer.message)
  const hosts: string[] = []
  for (let rest = answer.body; rest.length > 0;) {
    const end = 5 + rest.readUInt32BE(1)
    hosts.push(fromBinary(ServerReflectionResponseSchema, rest.subarray(5, end)).validHost)
    rest = rest.subarray(end)
  }
  assert.deepEqual(hosts, ['a', 'b', 'c', 'd', 'e'])
})

test('malformed requests: INTERNAL for broken framing and messages, UNIMPLEMENTED for none or several, RESOURCE_EXHAUSTED for too large ones', async () => {
  await using scope = await grpcProxyScope({ bodyBytesMax: 10_000 })
  await using client = await http2Client(scope.proxy.port)
  const far = Buffer.alloc(5)
  far.writeUInt32BE(100_000, 1)
  const rows: [string, Buffer[], number, string][] = [
    ['no message', [], 12, 'no message'],
    ['two messages', [ECHO, ECHO], 12, 'several'],
    ['cut in the message', [ECHO.subarray(0, 9)], 13, 'within a message'],
    ['cut in the prefix', [ECHO.subarray(0, 3)], 13, 'within a message'],
    ['flag 2', [grpcFrame(invokeMessage('echo'), 2)], 13, 'flag 2'],
    ['no protobuf', [grpcFrame(Buffer.from('ff', 'hex'))], 13, 'shoal.v1.InvokeRequest'],
    ['text that is no UTF-8', [grpcFrame(Buffer.from('0a01ff', 'hex'))], 13, 'InvokeRequest'],
    ['announced too large', [far], 8, 'at most 75536'],
  ]
  for (const [what, body, code, text] of rows) {
    const answer = await http2Call(client, {}, body)
    assert.deepEqual([answer.status, answer.code, answer.trailersOnly], [200, code, true], what)
    assert.ok(answer.message.includes(text), `${what}: ${answer.message}`)
  }
  // One that goes on sending is told to stop.
  const open = await http2Call(client, {}, [far, Buffer.alloc(50_000)], false)
  assert.deepEqual([open.code, open.reset], [8, 0])
  assert.equal(scope.invoker.seen.length, 0)
  assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
})

test('a message in pieces of a few bytes, and ten at once on a connection', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  const frame = grpcFrame(invokeMessage('echo', 'in pieces'))
  const pieces = Array.from({ length: Math.ceil(frame.length / 3) }, (_, at) =>
    frame.subarray(at * 3, at * 3 + 3),
  )
  assert.equal(payloadOf(await http2Call(client, {}, pieces)), 'in pieces')
  const calls = Array.from({ length: 10 }, (_, n) =>
    http2Call(client, {}, [grpcFrame(invokeMessage('echo', `call ${n}`))]),
  )
  const payloads = (await Promise.all(calls)).map(payloadOf)
  assert.deepEqual(
    payloads,
    Array.from({ length: 10 }, (_, n) => `call ${n}`),
  )
})

test('metadata reach the function: several of a name, binary ones with padding, and nothing that is gRPC itself', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  const headers = {
    'x-a': ['1', '2'],
    'x-bin': 'AQI',
    'grpc-timeout': '10S',
    'grpc-accept-encoding': 'gzip',
    'user-agent': 'test',
  }
  const answer = await http2Call(client, headers, [grpcFrame(invokeMessage('inspect'))])
  const told: { headers: string[]; deadlineMs: number } = JSON.parse(payloadOf(answer))
  const expected = 'x-a 1 x-a 2 x-bin AQI= user-agent test content-type application/octet-stream'
  assert.deepEqual(told.headers, expected.split(' '))
  assert.ok(told.deadlineMs > 9_000 && told.deadlineMs <= 10_000, `${told.deadlineMs} ms`)
})

test('a deadline ends the call also when the function and the caller do not keep it; a malformed one is INTERNAL', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  const slow = grpcFrame(invokeMessage('slow', '', 'ms=60000'))
  const startedMs = performance.now()
  const late = await http2Call(client, { 'grpc-timeout': '100m' }, [slow])
  assert.equal(late.code, 4)
  assert.equal(late.fields['shoal-code'], 'DEADLINE_EXCEEDED')
  const tookMs = performance.now() - startedMs
  assert.ok(tookMs >= 100 && tookMs < 30_000, `${tookMs} ms`)
  await scope.invoker.aborted()
  for (const text of ['100', '1x', '123456789S']) {
    assert.equal((await http2Call(client, { 'grpc-timeout': text }, [ECHO])).code, 13, text)
  }
  assert.equal(scope.invoker.seen.length, 1)
})

test('a caller that resets its stream, or vanishes, cancels the function; its other calls go on', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  const slow = grpcFrame(invokeMessage('slow', '', 'ms=60000'))
  for (const path of [INVOKE, INVOKE_STREAM]) {
    const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc' }
    const stream = client.request(headers)
    stream.on('error', () => undefined)
    stream.end(slow)
    await eventually(() => scope.invoker.running === 1)
    const other = http2Call(client, {}, [grpcFrame(invokeMessage('slow', '', 'ms=300'))])
    await eventually(() => scope.invoker.running === 2)
    const { signal } = scope.invoker.seen.at(-2) ?? {}
    stream.close(8)
    await eventually(() => signal?.aborted === true)
    assert.equal(signal?.reason.code, 'CALLER_GONE')
    assert.equal((await other).code, 0)
  }
  await using second = await http2Client(scope.proxy.port)
  void http2Call(second, {}, [slow])
  await eventually(() => scope.invoker.running === 1)
  second.destroy()
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.inFlight === 0)
})

test('limits: calls at once, connections, header', async () => {
  await using scope = await grpcProxyScope({
    streamsPerConnectionMax: 2,
    server: { connectionsMax: 2, headerBytesMax: 4_096 },
  })
  await using client = await http2Client(scope.proxy.port)
  assert.equal(client.remoteSettings.maxConcurrentStreams, 2)
  assert.equal(client.remoteSettings.maxHeaderListSize, 4_096)
  const large = await http2Call(client, { 'x-large': 'y'.repeat(5_000) }, [ECHO])
  assert.deepEqual([large.status, large.code], [200, 8])
  assert.match(large.message, /header/)
  assert.equal((await http2Call(client, { 'x-large': 'y'.repeat(3_000) }, [ECHO])).code, 0)
  await using second = await http2Client(scope.proxy.port)
  await assert.rejects(http2Client(scope.proxy.port))
  assert.equal((await http2Call(second, {}, [ECHO])).code, 0)
})

test('a request that does not come to its end is given up', async () => {
  await using scope = await grpcProxyScope({ server: { receiveMs: 200 } })
  await using client = await http2Client(scope.proxy.port)
  for (const body of [[], [ECHO.subarray(0, 9)], [ECHO]]) {
    const answer = await http2Call(client, {}, body, false)
    assert.equal(answer.code, 4, answer.message)
  }
  assert.equal(scope.invoker.seen.length, 0)
})

test('payloads above every window pass both ways, several at once', async () => {
  await using scope = await grpcProxyScope({ bodyBytesMax: 4_000_000 })
  await using client = await http2Client(scope.proxy.port)
  const payload = patterned(3_000_000)
  const calls = Array.from({ length: 4 }, () =>
    http2Call(client, {}, [grpcFrame(invokeMessage('echo', payload))]),
  )
  for (const answer of await Promise.all(calls)) {
    assert.equal(answer.code, 0, answer.message)
    const echo = fromBinary(InvokeResponseSchema, answer.body.subarray(5))
    assert.ok(payload.equals(echo.payload))
  }
})

test('a reader that takes nothing holds up its own call alone: the function waits, others are served', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  client.setLocalWindowSize(16 * 1024 * 1024)
  const headers = { ':method': 'POST', ':path': INVOKE_STREAM, 'content-type': 'application/grpc' }
  const before = produced.bytes
  const stream = client.request(headers)
  stream.on('error', () => undefined)
  stream.end(grpcFrame(invokeMessage('pieces', '', 'count=5000&bytes=65536')))
  await once(stream, 'response')
  await sleep(300)
  const made = produced.bytes - before
  assert.ok(made < 2_000_000, `${made} of 327,680,000 bytes made`)
  assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
  let taken = 0
  stream.on('data', (chunk: Buffer) => {
    taken += chunk.length
    if (taken > 20_000_000) stream.close(8)
  })
  await once(stream, 'close')
  assert.ok(taken > 20_000_000)
  await eventually(() => scope.proxy.inFlight === 0)
})

test('close: a call in flight is finished, and the connection ends by itself', async () => {
  await using scope = await grpcProxyScope()
  await using client = await http2Client(scope.proxy.port)
  await using idle = await http2Client(scope.proxy.port)
  const running = http2Call(client, {}, [grpcFrame(invokeMessage('slow', '', 'ms=1500'))])
  await eventually(() => scope.invoker.running === 1)
  const ended = Promise.all([once(client, 'close'), once(idle, 'close')])
  const startedMs = performance.now()
  const closed = scope.proxy.close(60_000)
  assert.equal((await running).code, 0)
  await Promise.all([ended, closed])
  assert.ok(performance.now() - startedMs < 30_000)
  await assert.rejects(http2Client(scope.proxy.port))
})
