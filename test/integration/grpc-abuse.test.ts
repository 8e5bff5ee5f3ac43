import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { BodyBudget } from '#agent/sockets/index.ts'
import { eventually } from '#test/eventually.ts'
import {
  BLOCK,
  CODE,
  CONTINUATION,
  DATA,
  ECHO,
  type Frame,
  HEADERS,
  PING,
  PRIORITY,
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
import { clientFrame, grpcBlock, RawH2, u32 } from '#test/raw-h2.ts'

/** An answer that nobody takes: long enough for a test to look at what is held meanwhile. */
const STALLED_MS = 6_000

function many(count: number, frames: (n: number) => Frame[]): Frame[] {
  return Array.from({ length: count }, (_, n) => frames(n)).flat()
}

test('floods end the connection: PING, SETTINGS, empty DATA, resets, headers without end', async () => {
  // Counts begin anew with each look: on a busy machine one could come in the middle of a flood.
  const rareMs = 600_000
  const server = { keepaliveTimeoutMs: rareMs, stalledMs: rareMs, receiveMs: rareMs }
  await using scope = await grpcProxyScope({ server })
  const { port } = scope.proxy
  const rows: [string, Frame[]][] = [
    ['PING', many(2_000, () => [[PING, 0, 0, Buffer.alloc(8)]])],
    ['SETTINGS', many(2_000, () => [[SETTINGS, 0, 0]])],
    ['PRIORITY', many(2_000, () => [[PRIORITY, 0, 1, Buffer.alloc(5)]])],
    ['unknown', many(2_000, () => [[0x42, 0, 0]])],
    ['empty DATA', [[HEADERS, 4, 1, BLOCK], ...many(2_000, () => [[DATA, 0, 1]])]],
    [
      'resets',
      many(4_000, (n) => [
        [HEADERS, 4, n * 2 + 1, BLOCK],
        [RST, 0, n * 2 + 1, u32(8)],
      ]),
    ],
    [
      'resets by the server, for an empty window',
      many(4_000, (n) => [...request(n * 2 + 1, SLOW), [WINDOW, 0, n * 2 + 1, u32(0)]]),
    ],
    [
      'resets by the server, for DATA behind the end',
      many(4_000, (n) => [...request(n * 2 + 1, SLOW), [DATA, 0, n * 2 + 1, ECHO]]),
    ],
    ['empty CONTINUATION', [[HEADERS, 0, 1], ...many(2_000, () => [[CONTINUATION, 0, 1]])]],
    [
      'CONTINUATION',
      [[HEADERS, 0, 1], ...many(30, () => [[CONTINUATION, 0, 1, Buffer.alloc(16_000)]])],
    ],
  ]
  for (const [what, frames] of rows) {
    using raw = await RawH2.greet(port)
    raw.send(...frames)
    assert.equal(await raw.goaway(), CODE.calm, what)
    await eventually(() => raw.ended)
  }
})

test('a peer that reads nothing is read no further: what is to be answered stays bounded', async () => {
  await using scope = await grpcProxyScope()
  using deaf = await RawH2.greet(scope.proxy.port)
  deaf.socket.pause()
  const header = grpcBlock(`/${'x'.repeat(250)}`)
  const before = process.memoryUsage().rss
  let sentBytes = 0
  for (let round = 0; round < 600; round++) {
    const frames = many(100, (n) => [[HEADERS, 5, (round * 100 + n) * 2 + 1, header]])
    const wire = Buffer.concat(frames.map((frame) => clientFrame(...frame)))
    sentBytes += wire.length
    deaf.socket.write(wire)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const waits = (): number => deaf.socket.writableLength
  await eventually(async () => {
    const bytes = waits()
    await sleep(300)
    return bytes === waits()
  })
  assert.ok(waits() > 1_000_000, `${waits()} of ${sentBytes} bytes are not taken`)
  const grownMiB = (process.memoryUsage().rss - before) / 2 ** 20
  assert.ok(grownMiB < 150, `${grownMiB} MiB more`)
  await using client = await http2Client(scope.proxy.port)
  assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
  // It is served on when it reads again.
  deaf.socket.resume()
  await eventually(() => waits() === 0, { timeoutMs: 60_000 })
})

test('answers that nobody takes: so many bytes are held and no more, and each only for a while', async () => {
  await using scope = await grpcProxyScope({
    bodyBytesMax: 8 * 1024 * 1024,
    server: { stalledMs: STALLED_MS, budget: new BodyBudget(60 * 1024 * 1024) },
  })
  const { port } = scope.proxy
  using deaf = await RawH2.greet(port, setting(4, 0))
  const large = grpcFrame(invokeMessage('bytes', '', `bytes=${8 * 1024 * 1024}`))
  const ids = Array.from({ length: 12 }, (_, n) => n * 2 + 1)
  deaf.send(...ids.flatMap((id) => request(id, large)))
  // 60 MiB hold seven of them.
  for (const id of ids.slice(7)) assert.equal(await statusOf(deaf, id), '8', `call ${id}`)
  const refusal = await http2Client(port)
  const busy = await http2Call(refusal, {}, [large])
  assert.equal(busy.code, 8)
  const hints = ['shoal-retry', 'retry-after-ms', 'grpc-retry-pushback-ms']
  for (const name of hints) assert.equal(busy.fields[name], undefined, 'the function has run')
  assert.equal((await http2Call(refusal, {}, [ECHO])).code, 0)
  for (const id of ids.slice(0, 7)) assert.equal(await deaf.reset(id), CODE.cancel)
  assert.equal((await http2Call(refusal, {}, [large])).code, 0)
  await refusal[Symbol.asyncDispose]()
})

test('requests that are large and never end, packed or not, are held up to so many bytes', async () => {
  const MIB = 1024 * 1024
  for (const packed of [true, false]) {
    const server = { budget: new BodyBudget(64 * MIB) }
    await using scope = await grpcProxyScope({ bodyBytesMax: 8 * MIB, server })
    await using client = await http2Client(scope.proxy.port)
    const message = invokeMessage('echo', Buffer.alloc(8 * MIB))
    const frame = packed ? grpcFrame(gzipSync(message), 1) : grpcFrame(message)
    const headers = packed ? { 'grpc-encoding': 'gzip' } : {}
    const calls = Array.from({ length: 12 }, () => http2Call(client, headers, [frame], false))
    await eventually(() => scope.proxy.inFlight > 7, { everyMs: 1 })
    // 64 MiB hold seven of them.
    await eventually(() => scope.proxy.inFlight <= 7, { timeoutMs: 60_000 })
    assert.equal((await http2Call(client, {}, [ECHO])).code, 0)
    client.destroy()
    await Promise.all(calls)
    await eventually(() => scope.proxy.inFlight === 0)
    await using again = await http2Client(scope.proxy.port)
    assert.equal((await http2Call(again, headers, [frame])).code, 0)
  }
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
