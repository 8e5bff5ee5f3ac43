import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { create, toBinary } from '@bufbuild/protobuf'
import { BodyBudget, room } from '#agent/sockets/index.ts'
import { ServerReflectionRequestSchema } from '#proto/index.ts'
import { eventually } from '#test/eventually.ts'
import {
  BLOCK,
  CODE,
  DATA,
  ECHO,
  HEADERS,
  PING,
  request,
  RST,
  setting,
  statusOf,
  WINDOW,
} from '#test/grpc-frames.ts'
import { grpcFrame, INVOKE, INVOKE_STREAM, invokeMessage } from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { grpcBlock, RawH2, u32 } from '#test/raw-h2.ts'

// What callers make the server hold is in the budget of bodies, in pieces of whatever size.

const FRAME_BYTES = 16 * 1024
const MIB = 1024 * 1024
const REFLECT = grpcBlock('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo')
/** Nothing of any answer is taken. */
const NO_WINDOW = setting(4, 0)

/** Frames of a question whose answer is some kilobytes. */
const question = grpcFrame(
  toBinary(
    ServerReflectionRequestSchema,
    create(ServerReflectionRequestSchema, {
      messageRequest: { case: 'fileByFilename', value: 'shoal.proto' },
    }),
  ),
)

/** The server has seen to all that was sent before. */
async function seen(raw: RawH2): Promise<void> {
  raw.send([PING, 0, 0, Buffer.alloc(8)])
  await raw.next(({ type }) => type === PING)
}

/** Whole messages among the DATA of the first stream. */
function answersIn(raw: RawH2): number {
  const bytes = Buffer.concat(
    raw.frames.filter(({ type, id }) => type === DATA && id === 1).map(({ payload }) => payload),
  )
  let count = 0
  for (let at = 0; at < bytes.length; at += 5 + bytes.readUInt32BE(at + 1)) count += 1
  return count
}

test('a small message whose request does not end counts; above the budget the next is refused, not one that is whole', async () => {
  const budget = new BodyBudget(1024 * 1024)
  await using scope = await grpcProxyScope({ server: { budget } })
  const message = grpcFrame(Buffer.alloc(FRAME_BYTES - 5))
  const held = budget.bytesMax / FRAME_BYTES
  using raw = await RawH2.greet(scope.proxy.port)
  for (let n = 0; n < 2 * held; n += 1) {
    raw.send([HEADERS, 4, 2 * n + 1, BLOCK], [DATA, 0, 2 * n + 1, message])
  }
  assert.equal(await statusOf(raw, 4 * held - 1), '8')
  assert.ok(budget.bytes > budget.bytesMax - FRAME_BYTES, `${budget.bytes} bytes counted`)
  assert.ok(budget.bytes < budget.bytesMax + FRAME_BYTES, `${budget.bytes} bytes counted`)
  assert.ok(scope.proxy.inFlight <= held + 1, `${scope.proxy.inFlight} calls are held`)
  using other = await RawH2.greet(scope.proxy.port)
  other.send(...request(1))
  assert.equal(await statusOf(other, 1), '0')
  raw.socket.destroy()
  await eventually(() => budget.bytes === 0)
  other.send([HEADERS, 4, 3, BLOCK], [DATA, 0, 3, ECHO], [DATA, 1, 3])
  assert.equal(await statusOf(other, 3), '0')
  assert.equal(budget.bytes, 0)
})

test('what a stream holds while its call takes nothing counts; beyond the budget it is reset', async () => {
  const budget = new BodyBudget(10 * FRAME_BYTES)
  await using scope = await grpcProxyScope({ server: { budget } })
  using raw = await RawH2.greet(scope.proxy.port, NO_WINDOW)
  const questions = Buffer.concat(Array.from({ length: 100 }, () => question))
  raw.send([HEADERS, 4, 1, REFLECT], [DATA, 0, 1, questions])
  await seen(raw)
  // The call does not go on with so much of its answers waiting.
  const waiting = budget.bytes
  assert.ok(waiting > 4 * FRAME_BYTES, `${waiting} bytes of answers`)
  const more = Buffer.alloc(FRAME_BYTES)
  for (let n = 0; n < 2; n += 1) raw.send([DATA, 0, 1, more])
  await eventually(() => budget.bytes >= waiting + 2 * FRAME_BYTES)
  assert.ok(budget.bytes <= budget.bytesMax)
  for (let n = 0; n < 6; n += 1) raw.send([DATA, 0, 1, more])
  assert.equal(await raw.reset(1), CODE.calm)
  assert.equal(budget.bytes, 0)
})

test('answers that nobody takes are not made: a call takes one question after the other, also of those that came together', async () => {
  const budget = new BodyBudget(1024 * 1024)
  await using scope = await grpcProxyScope({ server: { budget } })
  using raw = await RawH2.greet(scope.proxy.port, NO_WINDOW)
  const count = Math.floor(FRAME_BYTES / question.length)
  const questions = Buffer.concat(Array.from({ length: count }, () => question))
  raw.send([HEADERS, 4, 1, REFLECT], [DATA, 1, 1, questions])
  // They wait, and count.
  await eventually(() => budget.bytes > FRAME_BYTES / 2)
  raw.send([WINDOW, 0, 0, u32(2 ** 30)], [WINDOW, 0, 1, u32(2 ** 30)])
  assert.equal(await statusOf(raw, 1), '0')
  assert.equal(budget.bytes, 0)
  assert.equal(answersIn(raw), count)
})

test('a second message behind one that is being unpacked is refused at once', async () => {
  const budget = new BodyBudget(1024 * 1024)
  await using scope = await grpcProxyScope({ server: { budget }, bodyBytesMax: 32 * 1024 * 1024 })
  using raw = await RawH2.greet(scope.proxy.port)
  const large = gzipSync(invokeMessage('echo', Buffer.alloc(32 * 1024 * 1024)))
  const block = grpcBlock(INVOKE, 'grpc-encoding', 'gzip')
  const both = Buffer.concat([grpcFrame(large, 1), grpcFrame(Buffer.alloc(100))])
  raw.send([HEADERS, 4, 1, block])
  for (let at = 0; at < both.length; at += FRAME_BYTES) {
    raw.send([DATA, 0, 1, both.subarray(at, at + FRAME_BYTES)])
  }
  assert.equal(await statusOf(raw, 1), '12')
  await eventually(() => budget.bytes === 0)
})

test('packed messages that wait to be unpacked count, above the budget they are refused, and they go with their calls', async () => {
  const budget = new BodyBudget(2 * MIB)
  await using scope = await grpcProxyScope({ server: { budget }, bodyBytesMax: 32 * MIB })
  using raw = await RawH2.greet(scope.proxy.port)
  const block = grpcBlock(INVOKE, 'grpc-encoding', 'gzip')
  // The first keep the others waiting for a while.
  const large = grpcFrame(gzipSync(invokeMessage('echo', Buffer.alloc(32 * MIB))), 1)
  const small = grpcFrame(Buffer.alloc(FRAME_BYTES - 5), 1)
  const largeIds = Array.from({ length: 10 }, (_, n) => 2 * n + 1)
  const smallIds = Array.from({ length: 140 }, (_, n) => 2 * (n + largeIds.length) + 1)
  for (const id of largeIds) {
    raw.send([HEADERS, 4, id, block])
    for (let at = 0; at < large.length; at += FRAME_BYTES) {
      const end = at + FRAME_BYTES
      raw.send([DATA, end < large.length ? 0 : 1, id, large.subarray(at, end)])
    }
  }
  for (const id of smallIds) raw.send([HEADERS, 4, id, block], [DATA, 1, id, small])
  await seen(raw)
  assert.ok(budget.bytes <= budget.bytesMax + FRAME_BYTES, `${budget.bytes} bytes counted`)
  assert.equal(await statusOf(raw, smallIds.at(-1) ?? 0), '8')
  for (const id of smallIds) raw.send([RST, 0, id, u32(CODE.cancel)])
  await seen(raw)
  const left = largeIds.length * large.length
  assert.ok(budget.bytes <= left, `${budget.bytes} bytes counted, ${left} at most are wanted`)
  assert.ok(scope.proxy.inFlight <= largeIds.length, `${scope.proxy.inFlight} calls`)
  await eventually(() => budget.bytes === 0, { timeoutMs: 60_000 })
})

test('answers that wait for their callers count, of whatever size, also when their calls have ended; beyond the budget calls fail', async () => {
  const rows: [path: string, bytes: number, count: number][] = [
    [INVOKE, 12_000, 110],
    [INVOKE, 100_000, 20],
    [INVOKE_STREAM, 65_536, 30],
    [INVOKE_STREAM, 1_000_000, 3],
  ]
  for (const [path, bytes, count] of rows) {
    const what = `${path}, ${bytes} bytes`
    const budget = new BodyBudget(MIB)
    await using scope = await grpcProxyScope({ server: { budget } })
    using raw = await RawH2.greet(scope.proxy.port, NO_WINDOW)
    const message = grpcFrame(invokeMessage('bytes', '', `bytes=${bytes}`))
    for (let n = 0; n < count; n += 1) {
      raw.send([HEADERS, 4, 2 * n + 1, grpcBlock(path)], [DATA, 1, 2 * n + 1, message])
    }
    await eventually(() => scope.invoker.seen.length === count && scope.proxy.inFlight === 0)
    assert.equal(scope.invoker.running, 0)
    assert.ok(budget.bytes > MIB - 300_000, `${what}: ${budget.bytes} bytes counted`)
    assert.ok(budget.bytes <= MIB * (9 / 8) + FRAME_BYTES, `${what}: ${budget.bytes} bytes`)
    assert.ok(!raw.frames.some(({ type }) => type === DATA))
    assert.equal(await statusOf(raw, 2 * count - 1), '8', what)
    // An answer that waits for nothing needs no room.
    using other = await RawH2.greet(scope.proxy.port)
    other.send(...request(1))
    assert.equal(await statusOf(other, 1), '0', what)
    raw.send([WINDOW, 0, 0, u32(2 ** 30)], [WINDOW, 0, 1, u32(2 ** 30)])
    assert.equal(await statusOf(raw, 1), '0', what)
    raw.socket.destroy()
    await eventually(() => budget.bytes === 0)
  }
})

test('a streamed answer that waits for its caller counts with what its function may send ahead', async () => {
  const budget = new BodyBudget(4 * MIB)
  await using scope = await grpcProxyScope({ server: { budget } })
  using raw = await RawH2.greet(scope.proxy.port, NO_WINDOW)
  const message = grpcFrame(invokeMessage('pieces', '', 'count=100&bytes=65536'))
  raw.send([HEADERS, 4, 1, grpcBlock(INVOKE_STREAM)], [DATA, 1, 1, message])
  await eventually(() => budget.bytes >= room.windowBytes + 65_536)
  assert.ok(budget.bytes < room.windowBytes + 200_000, `${budget.bytes} bytes counted`)
  raw.send([WINDOW, 0, 0, u32(2 ** 30)], [WINDOW, 0, 1, u32(2 ** 30)])
  assert.equal(await statusOf(raw, 1), '0')
  assert.equal(budget.bytes, 0)
})

test('a question of reflection is small: a large one is refused by its length, packed or not', async () => {
  const budget = new BodyBudget(16 * MIB)
  await using scope = await grpcProxyScope({ server: { budget }, bodyBytesMax: 8 * MIB })
  using raw = await RawH2.greet(scope.proxy.port)
  const large = grpcFrame(Buffer.alloc(8 * MIB))
  raw.send([HEADERS, 4, 1, REFLECT], [DATA, 0, 1, large.subarray(0, FRAME_BYTES)])
  assert.equal(await statusOf(raw, 1), '8')
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'
  const packed = grpcFrame(gzipSync(Buffer.alloc(100_000)), 1)
  raw.send([HEADERS, 4, 3, grpcBlock(path, 'grpc-encoding', 'gzip')], [DATA, 0, 3, packed])
  assert.equal(await statusOf(raw, 3), '8')
  assert.equal(budget.bytes, 0)
})

test('header blocks that do not end count; beyond the budget their connections end', async () => {
  const budget = new BodyBudget(4 * FRAME_BYTES)
  await using scope = await grpcProxyScope({ server: { budget } })
  const part = Buffer.alloc(16_000)
  const peers: RawH2[] = []
  for (let n = 1; n <= 5; n += 1) {
    const raw = await RawH2.greet(scope.proxy.port)
    peers.push(raw)
    raw.send([HEADERS, 0, 1, part])
    await eventually(() => budget.bytes === n * part.length)
  }
  using last = await RawH2.greet(scope.proxy.port)
  last.send([HEADERS, 0, 1, part])
  assert.equal(await last.goaway(), CODE.calm)
  for (const raw of peers) raw.socket.destroy()
  await eventually(() => budget.bytes === 0)
})
