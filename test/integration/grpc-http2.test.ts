import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, toBinary } from '@bufbuild/protobuf'
import { ServerReflectionRequestSchema } from '#proto/index.ts'
import { eventually } from '#test/eventually.ts'
import {
  BLOCK,
  CODE,
  CONTINUATION,
  DATA,
  ECHO,
  END_HEADERS,
  END_STREAM,
  type Frame,
  GOAWAY,
  HEADERS,
  PADDED,
  PING,
  PRIORITIZED,
  PRIORITY,
  PUSH,
  request,
  RST,
  setting,
  SETTINGS,
  SLOW,
  statusOf,
  WINDOW,
} from '#test/grpc-frames.ts'
import { grpcFrame, http2Call, http2Client, INVOKE, invokeMessage } from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { clientFrame, grpcBlock, literalBlock, PREFACE, RawH2, u32 } from '#test/raw-h2.ts'

test('what breaks a connection: it ends with the right code, and the next one is served', async () => {
  await using scope = await grpcProxyScope()
  const opened: Frame = [HEADERS, END_HEADERS, 1, BLOCK]
  const rows: [string, Frame[], number][] = [
    ['a frame above 16 KiB', [[DATA, 0, 1, Buffer.alloc(16_385)]], CODE.frameSize],
    ['DATA of no stream', [[DATA, 0, 0, ECHO]], CODE.protocol],
    ['DATA of a stream that has not begun', [[DATA, 0, 5, ECHO]], CODE.protocol],
    ['HEADERS of no stream', [[HEADERS, END_HEADERS, 0, BLOCK]], CODE.protocol],
    ['a stream of the server', [[HEADERS, END_HEADERS, 2, BLOCK]], CODE.protocol],
    ['padding beyond the end', [opened, [DATA, PADDED, 1, Buffer.from([9, 1])]], CODE.protocol],
    ['PUSH_PROMISE', [opened, [PUSH, END_HEADERS, 1, Buffer.alloc(8)]], CODE.protocol],
    ['PING of 7 bytes', [[PING, 0, 0, Buffer.alloc(7)]], CODE.frameSize],
    ['PING of a stream', [opened, [PING, 0, 1, Buffer.alloc(8)]], CODE.protocol],
    ['SETTINGS of 5 bytes', [[SETTINGS, 0, 0, Buffer.alloc(5)]], CODE.frameSize],
    ['SETTINGS of a stream', [opened, [SETTINGS, 0, 1]], CODE.protocol],
    ['SETTINGS with ACK and more', [[SETTINGS, 1, 0, Buffer.alloc(6)]], CODE.frameSize],
    ['a frame size of 1', [[SETTINGS, 0, 0, setting(5, 1)]], CODE.protocol],
    ['a window of 2^31', [[SETTINGS, 0, 0, setting(4, 2 ** 31)]], CODE.flowControl],
    ['WINDOW_UPDATE of 0', [[WINDOW, 0, 0, u32(0)]], CODE.protocol],
    ['WINDOW_UPDATE of 3 bytes', [[WINDOW, 0, 0, Buffer.alloc(3)]], CODE.frameSize],
    ['a window beyond 2^31', [[WINDOW, 0, 0, u32(2 ** 31 - 1)]], CODE.flowControl],
    ['RST_STREAM of 3 bytes', [opened, [RST, 0, 1, Buffer.alloc(3)]], CODE.frameSize],
    ['RST_STREAM of what has not begun', [[RST, 0, 7, u32(8)]], CODE.protocol],
    ['PRIORITY of 4 bytes', [[PRIORITY, 0, 1, Buffer.alloc(4)]], CODE.frameSize],
    ['CONTINUATION of nothing', [[CONTINUATION, END_HEADERS, 1, BLOCK]], CODE.protocol],
    [
      'a frame within a header',
      [
        [HEADERS, 0, 1, BLOCK],
        [PING, 0, 0, Buffer.alloc(8)],
      ],
      CODE.protocol,
    ],
    [
      'CONTINUATION of another',
      [
        [HEADERS, 0, 1, BLOCK],
        [CONTINUATION, 4, 3, BLOCK],
      ],
      CODE.protocol,
    ],
    [
      'a field that is not in the table',
      [[HEADERS, 5, 1, Buffer.from([0xff, 0x00])]],
      CODE.compression,
    ],
    [
      'a string beyond the end',
      [[HEADERS, 5, 1, Buffer.from([0x00, 0x05, 0x61])]],
      CODE.compression,
    ],
    ['a larger table', [[HEADERS, 5, 1, Buffer.from([0x3f, 0xe2, 0x1f])]], CODE.compression],
    [
      'DATA behind the end',
      [...request(1, SLOW), ...request(3), [RST, 0, 1, u32(8)], [DATA, 0, 1, ECHO]],
      CODE.closed,
    ],
  ]
  for (const [what, frames, code] of rows) {
    using raw = await RawH2.greet(scope.proxy.port)
    raw.send(...frames)
    assert.equal(await raw.goaway(), code, what)
    await eventually(() => raw.ended)
  }
  for (const bytes of [
    'GET / HTTP/1.1\r\nhost: a\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01',
    'PRI * HTTP/2.1',
  ]) {
    using raw = await RawH2.connect(scope.proxy.port)
    raw.socket.write(bytes)
    await eventually(() => raw.ended)
  }
  using early = await RawH2.connect(scope.proxy.port)
  early.socket.write(Buffer.concat([PREFACE, clientFrame(PING, 0, 0, Buffer.alloc(8))]))
  assert.equal(await early.goaway(), CODE.protocol)
  await using client = await http2Client(scope.proxy.port)
  assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
  await eventually(() => scope.proxy.inFlight === 0)
})

/** A header on its own, of stream 1. */
function header(...fields: string[]): Frame[] {
  return [[HEADERS, END_HEADERS, 1, literalBlock(...fields)]]
}

test('what breaks a stream: it is reset with the right code, and the others of its connection go on', async () => {
  await using scope = await grpcProxyScope()
  const plain = [':method', 'POST', ':scheme', 'http', ':path', INVOKE]
  const opened: Frame = [HEADERS, END_HEADERS, 1, BLOCK]
  const rows: [string, Frame[], number][] = [
    ['no path', header(':method', 'POST', ':scheme', 'http'), CODE.protocol],
    ['a name in capitals', header(...plain, 'X-A', '1'), CODE.protocol],
    ['a field of the connection', header(...plain, 'connection', 'close'), CODE.protocol],
    ['a line feed', header(...plain, 'x-a', '1\n2'), CODE.protocol],
    ['a pseudo field behind others', header(...plain, 'x', 'y', ':authority', 'a'), CODE.protocol],
    ['an empty window', [opened, [WINDOW, 0, 1, u32(0)]], CODE.protocol],
    ['too large a window', [opened, [WINDOW, 0, 1, u32(2 ** 31 - 1)]], CODE.flowControl],
    [
      'HEADERS in mid-request',
      [opened, [HEADERS, END_HEADERS, 1, literalBlock('x', 'y')]],
      CODE.protocol,
    ],
    [
      'pseudo fields in trailers',
      [opened, [HEADERS, 5, 1, literalBlock(':path', '/')]],
      CODE.protocol,
    ],
    ['DATA behind the end', [...request(1, SLOW), [DATA, 0, 1, ECHO]], CODE.closed],
    [
      'another length than announced',
      [
        [HEADERS, 4, 1, grpcBlock(INVOKE, 'content-length', '3')],
        [DATA, END_STREAM, 1, ECHO],
      ],
      CODE.protocol,
    ],
  ]
  for (const [what, frames, code] of rows) {
    using raw = await RawH2.greet(scope.proxy.port)
    raw.send(...frames, ...request(3))
    assert.equal(await raw.reset(1), code, what)
    assert.equal(await statusOf(raw, 3), '0', what)
  }
  await eventually(() => scope.proxy.inFlight === 0)
})

/** A payload with seven bytes of padding, and what comes before it. */
function padded(bytes: Buffer, before = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from([7]), before, bytes, Buffer.alloc(7)])
}

test('what is unusual and right: padding, priority, a header in pieces, trailers, unknown frames, a table of another size', async () => {
  await using scope = await grpcProxyScope()
  using raw = await RawH2.greet(scope.proxy.port, setting(1, 0))
  raw.send(
    [HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, padded(BLOCK, Buffer.alloc(5))],
    [DATA, PADDED, 1, padded(ECHO.subarray(0, 10))],
    [0x42, 0xff, 1, Buffer.from('who knows')],
    [DATA, PADDED, 1, padded(ECHO.subarray(10))],
    [HEADERS, END_HEADERS | END_STREAM, 1, literalBlock('x-checksum', '1')],
    [PRIORITY, 0, 9, Buffer.alloc(5)],
    [HEADERS, 0, 3, BLOCK.subarray(0, 1)],
    [CONTINUATION, 0, 3, BLOCK.subarray(1, 20)],
    [CONTINUATION, 0, 3],
    [CONTINUATION, END_HEADERS, 3, BLOCK.subarray(20)],
    [DATA, END_STREAM, 3, ECHO],
    [PING, 0, 0, Buffer.from('12345678')],
  )
  const first = await raw.next(({ type }) => type === HEADERS)
  // The peer's table is smaller now: the first header has to say that ours is empty.
  assert.deepEqual([first.id, first.payload[0]], [1, 0x20])
  assert.equal(await statusOf(raw, 1), '0')
  const second = await raw.next(({ type, id }) => type === HEADERS && id === 3)
  assert.equal(second.payload[0], 0x88)
  assert.equal(await statusOf(raw, 3), '0')
  const pong = await raw.next(({ type }) => type === PING)
  assert.deepEqual([pong.flags, String(pong.payload)], [1, '12345678'])
})

test('windows are kept: no more is sent than the peer takes, also when it takes less than nothing, and more only when it says so', async () => {
  await using scope = await grpcProxyScope()
  using raw = await RawH2.greet(scope.proxy.port, setting(4, 100))
  raw.send(...request(1, grpcFrame(invokeMessage('bytes', '', 'bytes=1000'))))
  const received = (): number =>
    raw.frames.reduce((sum, { type, payload }) => sum + (type === DATA ? payload.length : 0), 0)
  await eventually(() => received() === 100)
  raw.send([SETTINGS, 0, 0, setting(4, 50)], [WINDOW, 0, 1, u32(50)])
  await sleep(100)
  assert.equal(received(), 100)
  raw.send([WINDOW, 0, 1, u32(1)])
  await eventually(() => received() === 101)
  raw.send([SETTINGS, 0, 0, setting(4, 70)])
  await eventually(() => received() === 121)
  raw.send([WINDOW, 0, 1, u32(10_000)])
  assert.equal(await statusOf(raw, 1), '0')
  assert.ok(received() > 1_000)
})

test('a caller that takes no answers is read no further, and stopped when it sends more than its window allows', async () => {
  await using scope = await grpcProxyScope()
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'
  const ask = create(ServerReflectionRequestSchema, {
    messageRequest: { case: 'fileByFilename', value: 'shoal.proto' },
  })
  const question = grpcFrame(toBinary(ServerReflectionRequestSchema, ask))
  const questions = Buffer.concat(Array.from({ length: 200 }, () => question))
  const opened: Frame[] = [
    [HEADERS, END_HEADERS, 1, grpcBlock(path)],
    [DATA, 0, 1, questions],
  ]
  using raw = await RawH2.greet(scope.proxy.port, setting(4, 0))
  raw.send(...opened)
  for (let n = 0; n < 17; n++) raw.send([DATA, 0, 1, Buffer.alloc(16_000)])
  assert.equal(await raw.reset(1), CODE.flowControl)

  using dribbling = await RawH2.greet(scope.proxy.port, setting(4, 0))
  dribbling.send(...opened)
  const drops = Array.from({ length: 1_100 }, (): Frame => [DATA, 0, 1, question.subarray(0, 1)])
  dribbling.send(...drops)
  assert.equal(await dribbling.reset(1), CODE.calm)

  using patient = await RawH2.greet(scope.proxy.port, setting(4, 0))
  patient.send(...opened, [DATA, END_STREAM, 1, question])
  await sleep(100)
  assert.ok(!patient.frames.some(({ type }) => type === DATA))
  patient.send([WINDOW, 0, 1, u32(10_000_000)], [WINDOW, 0, 0, u32(10_000_000)])
  assert.equal(await statusOf(patient, 1), '0')
  const parts = patient.frames.filter(({ type }) => type === DATA).map(({ payload }) => payload)
  const answers = Buffer.concat(parts)
  const bytesEach = 5 + answers.readUInt32BE(1)
  assert.equal(answers.length, 201 * bytesEach)
})

test('a stream that the server has ended is granted nothing more', async () => {
  await using scope = await grpcProxyScope()
  using raw = await RawH2.greet(scope.proxy.port)
  // Half of the stream's window: the last piece would renew it, but holds the second message, which ends the call.
  const second = grpcFrame(Buffer.alloc(100))
  const first = grpcFrame(Buffer.alloc(128 * 1024 - 5 - second.length))
  const both = Buffer.concat([first, second])
  raw.send([HEADERS, END_HEADERS, 1, BLOCK])
  for (let at = 0; at < both.length; at += 16_384) {
    raw.send([DATA, 0, 1, both.subarray(at, at + 16_384)])
  }
  raw.send([PING, 0, 0, Buffer.alloc(8)])
  assert.equal(await statusOf(raw, 1), '12')
  assert.equal(await raw.reset(1), 0)
  await raw.next(({ type }) => type === PING)
  assert.ok(!raw.frames.some(({ type, id }) => type === WINDOW && id === 1))
})

test('more calls at once than agreed are refused one by one', async () => {
  await using scope = await grpcProxyScope({ streamsPerConnectionMax: 2 })
  using raw = await RawH2.greet(scope.proxy.port)
  raw.send(...request(1, SLOW), ...request(3, SLOW), ...request(5))
  assert.equal(await raw.reset(5), CODE.refused)
  raw.send([RST, 0, 1, u32(CODE.cancel)], ...request(7))
  assert.equal(await statusOf(raw, 7), '0')
})

test('a peer that vanishes without a word, or never greets, is found out, and its call is cancelled', async () => {
  await using scope = await grpcProxyScope({
    server: { keepaliveMs: 100, keepaliveTimeoutMs: 200 },
  })
  using silent = await RawH2.greet(scope.proxy.port)
  using mute = await RawH2.connect(scope.proxy.port)
  await using alive = await http2Client(scope.proxy.port)
  silent.send(...request(1, SLOW))
  await silent.next(({ type, flags }) => type === PING && flags === 0)
  await scope.invoker.aborted()
  await eventually(() => silent.ended && mute.ended)
  assert.equal((await http2Call(alive, {}, [ECHO])).code, 0)
})

test('close: what comes before the peer has answered is told UNAVAILABLE; later it is not read; the last call ends the connection', async () => {
  await using scope = await grpcProxyScope()
  using raw = await RawH2.greet(scope.proxy.port)
  raw.send(...request(1, grpcFrame(invokeMessage('slow', '', 'ms=400'))))
  await eventually(() => scope.invoker.running === 1)
  const closed = scope.proxy.close(5_000)
  const goaway = await raw.next(({ type }) => type === GOAWAY)
  assert.deepEqual(
    [goaway.payload.readUInt32BE(0), goaway.payload.readUInt32BE(4)],
    [2 ** 31 - 1, 0],
  )
  const ping = await raw.next(({ type }) => type === PING)
  raw.send(...request(3))
  assert.equal(await statusOf(raw, 3), '14')
  raw.send([PING, 1, 0, ping.payload], ...request(5))
  const last = await raw.next(({ type }) => type === GOAWAY)
  assert.equal(last.payload.readUInt32BE(0), 3)
  assert.equal(await statusOf(raw, 1), '0')
  await eventually(() => raw.ended)
  assert.ok(!raw.frames.some(({ id }) => id === 5))
  await closed
})
