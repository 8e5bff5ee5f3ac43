import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import * as fc from 'fast-check'
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
} from '#test/grpc-frames.ts'
import { http2Call, http2Client, INVOKE } from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { clientFrame, grpcBlock, RawH2, u32 } from '#test/raw-h2.ts'

function many(count: number, frames: (n: number) => Frame[]): Frame[] {
  return Array.from({ length: count }, (_, n) => frames(n)).flat()
}

test('floods end the connection: PING, SETTINGS, empty DATA, resets, headers without end, a peer that reads nothing', async () => {
  await using scope = await grpcProxyScope()
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
