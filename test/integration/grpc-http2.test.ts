import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, toBinary } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { ServerReflectionRequestSchema } from '#proto/index.ts'
import { eventually } from '#test/eventually.ts'
import { grpcFrame, http2Call, http2Client, INVOKE, invokeMessage } from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { clientFrame, grpcBlock, literalBlock, PREFACE, RawH2, u32 } from '#test/raw-h2.ts'

const ECHO = grpcFrame(invokeMessage('echo', 'hello'))
const SLOW = grpcFrame(invokeMessage('slow', '', 'ms=60000'))
const BLOCK = grpcBlock(INVOKE)

const [DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
]
const [END_STREAM, END_HEADERS, PADDED, PRIORITIZED] = [1, 4, 8, 32]
const CODE = {
  protocol: 1,
  flowControl: 3,
  closed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
}

type Frame = readonly [type: number, flags: number, id: number, payload?: Uint8Array]

/** A setting as SETTINGS carries it. */
const setting = (id: number, value: number): Buffer =>
  Buffer.concat([Buffer.from([0, id]), u32(value)])

/** A whole request. */
const request = (id: number, frame = ECHO): Frame[] => [
  [HEADERS, END_HEADERS, id, BLOCK],
  [DATA, END_STREAM, id, frame],
]

/** Waits for the trailers of a stream; they hold the status as plain text. */
async function statusOf(raw: RawH2, stream: number): Promise<string> {
  const { payload } = await raw.next(
    ({ type, flags, id }) => type === HEADERS && id === stream && (flags & END_STREAM) !== 0,
  )
  return /grpc-status.(\d+)/s.exec(payload.toString('latin1'))?.[1] ?? 'none'
}

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

test('what breaks a stream: it is reset with the right code, and the others of its connection go on', async () => {
  await using scope = await grpcProxyScope()
  const block = (...fields: string[]): Buffer => literalBlock(...fields)
  const plain = [':method', 'POST', ':scheme', 'http', ':path', INVOKE]
  const opened: Frame = [HEADERS, END_HEADERS, 1, BLOCK]
  const header = (...fields: string[]): Frame[] => [[HEADERS, END_HEADERS, 1, block(...fields)]]
  const rows: [string, Frame[], number][] = [
    ['no path', header(':method', 'POST', ':scheme', 'http'), CODE.protocol],
    ['a name in capitals', header(...plain, 'X-A', '1'), CODE.protocol],
    ['a field of the connection', header(...plain, 'connection', 'close'), CODE.protocol],
    ['a line feed', header(...plain, 'x-a', '1\n2'), CODE.protocol],
    ['a pseudo field behind others', header(...plain, 'x', 'y', ':authority', 'a'), CODE.protocol],
    ['an empty window', [opened, [WINDOW, 0, 1, u32(0)]], CODE.protocol],
    ['too large a window', [opened, [WINDOW, 0, 1, u32(2 ** 31 - 1)]], CODE.flowControl],
    ['HEADERS in mid-request', [opened, [HEADERS, END_HEADERS, 1, block('x', 'y')]], CODE.protocol],
    ['pseudo fields in trailers', [opened, [HEADERS, 5, 1, block(':path', '/')]], CODE.protocol],
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

test('what is unusual and right: padding, priority, a header in pieces, trailers, unknown frames, a table of another size', async () => {
  await using scope = await grpcProxyScope()
  using raw = await RawH2.greet(scope.proxy.port, setting(1, 0))
  const padded = (bytes: Buffer, before = Buffer.alloc(0)): Buffer =>
    Buffer.concat([Buffer.from([7]), before, bytes, Buffer.alloc(7)])
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
  const bytes = (fn: string): Buffer => grpcFrame(invokeMessage(fn, '', 'bytes=1000'))
  raw.send(...request(1, bytes('bytes')))
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

test('floods end the connection: PING, SETTINGS, empty DATA, resets, headers without end, a peer that reads nothing', async () => {
  await using scope = await grpcProxyScope()
  const { port } = scope.proxy
  const many = <T>(count: number, frames: (n: number) => T[]): T[] =>
    Array.from({ length: count }, (_, n) => frames(n)).flat()
  const rows: [string, Frame[]][] = [
    ['PING', many(2_000, () => [[PING, 0, 0, Buffer.alloc(8)]])],
    ['SETTINGS', many(2_000, () => [[SETTINGS, 0, 0]])],
    ['PRIORITY', many(2_000, () => [[PRIORITY, 0, 1, Buffer.alloc(5)]])],
    ['unknown', many(2_000, () => [[0x42, 0, 0]])],
    ['empty DATA', [[HEADERS, 4, 1, BLOCK], ...many(2_000, (): Frame[] => [[DATA, 0, 1]])]],
    [
      'resets',
      many(4_000, (n) => [
        [HEADERS, 4, n * 2 + 1, BLOCK],
        [RST, 0, n * 2 + 1, u32(8)],
      ]),
    ],
    [
      'empty CONTINUATION',
      [[HEADERS, 0, 1], ...many(2_000, (): Frame[] => [[CONTINUATION, 0, 1]])],
    ],
    [
      'CONTINUATION',
      [[HEADERS, 0, 1], ...many(30, (): Frame[] => [[CONTINUATION, 0, 1, Buffer.alloc(16_000)]])],
    ],
  ]
  for (const [what, frames] of rows) {
    using raw = await RawH2.greet(port)
    raw.send(...frames)
    assert.equal(await raw.goaway(), CODE.calm, what)
    await eventually(() => raw.ended)
  }
  // One that never reads: the server stops reading as well, so that what is to be answered stays bounded.
  using deaf = await RawH2.greet(port)
  deaf.socket.pause()
  const before = process.memoryUsage().rss
  let id = 1
  let refused = false
  for (let round = 0; round < 2_000 && !refused; round++) {
    const wire = many(20, () => request((id += 2))).map((frame) => clientFrame(...frame))
    refused = !deaf.socket.write(Buffer.concat(wire))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await sleep(200)
  const grownMiB = (process.memoryUsage().rss - before) / 2 ** 20
  assert.ok(grownMiB < 200, `${grownMiB} MiB more`)
  await using client = await http2Client(port)
  assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
  deaf.socket.destroy()
  await eventually(() => scope.proxy.inFlight === 0)
})

test('a header that says little and means much is not unfolded beyond its limit', async () => {
  await using scope = await grpcProxyScope()
  using raw = await RawH2.greet(scope.proxy.port)
  const text = Buffer.alloc(4_000, 'x')
  const entry = Buffer.concat([Buffer.from([0x40, 1, 0x61, 127, 0xa1, 0x1e]), text])
  // One entry of the table, then 12,000 times that entry: 48 MB.
  const bomb = Buffer.concat([grpcBlock(INVOKE), entry, Buffer.alloc(12_000, 0x80 | 62)])
  raw.send(
    [HEADERS, 0, 1, bomb.subarray(0, 10_000)],
    [CONTINUATION, 4, 1, bomb.subarray(10_000)],
    [DATA, 1, 1, ECHO],
  )
  assert.equal(await statusOf(raw, 1), '8')
  raw.send(...request(3))
  assert.equal(await statusOf(raw, 3), '0')
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

test('whatever bytes come, the server goes on and nothing is left over', async () => {
  await using scope = await grpcProxyScope()
  const { port } = scope.proxy
  const frame = fc
    .tuple(
      fc.oneof({ weight: 9, arbitrary: fc.nat(10) }, fc.nat(255)),
      fc.nat(255),
      fc.oneof(fc.constantFrom(0, 1, 3, 5), fc.nat(2 ** 31 - 1)),
      fc.oneof(
        fc.uint8Array({ maxLength: 60 }),
        fc.constantFrom<Uint8Array>(BLOCK, ECHO, SLOW, u32(8), Buffer.alloc(8), setting(4, 10)),
      ),
    )
    .map((parts) => clientFrame(...parts))
  const right = fc.constantFrom(
    ...[1, 3, 5].map((id) => request(id).map((one) => clientFrame(...one))),
  )
  const parts = fc.array(fc.oneof(frame, right, fc.uint8Array({ maxLength: 30 })), {
    maxLength: 12,
  })
  await fc.assert(
    fc.asyncProperty(parts, async (chunks) => {
      using raw = await RawH2.greet(port)
      for (const chunk of chunks.flat()) raw.socket.write(chunk)
      raw.socket.end()
      await eventually(() => raw.ended, { everyMs: 1 })
    }),
    { numRuns: 300 },
  )
  await eventually(() => scope.proxy.inFlight === 0)
  await using client = await http2Client(port)
  assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
  assert.deepEqual(
    scope.log.lines.filter(({ level }) => level === 'error'),
    [],
  )
})
