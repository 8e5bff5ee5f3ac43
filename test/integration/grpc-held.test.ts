import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { create, toBinary } from '@bufbuild/protobuf'
import { BodyBudget } from '#agent/sockets/index.ts'
import { ServerReflectionRequestSchema } from '#proto/index.ts'
import { eventually } from '#test/eventually.ts'
import {
  BLOCK,
  DATA,
  ECHO,
  HEADERS,
  request,
  setting,
  statusOf,
  WINDOW,
} from '#test/grpc-frames.ts'
import { grpcFrame, INVOKE, invokeMessage } from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { grpcBlock, RawH2, u32 } from '#test/raw-h2.ts'

// What callers make the server hold is in the budget of bodies, in pieces of whatever size.

const FRAME_BYTES = 16 * 1024
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
  const budget = new BodyBudget(4 * FRAME_BYTES)
  await using scope = await grpcProxyScope({ server: { budget } })
  using raw = await RawH2.greet(scope.proxy.port, NO_WINDOW)
  const questions = Buffer.concat(Array.from({ length: 100 }, () => question))
  raw.send([HEADERS, 4, 1, REFLECT], [DATA, 0, 1, questions])
  // The call does not go on with so much of its answers waiting.
  const more = Buffer.alloc(FRAME_BYTES)
  for (let n = 0; n < 3; n += 1) raw.send([DATA, 0, 1, more])
  await eventually(() => budget.bytes >= 3 * FRAME_BYTES)
  assert.ok(budget.bytes <= budget.bytesMax)
  for (let n = 0; n < 2; n += 1) raw.send([DATA, 0, 1, more])
  assert.equal(await raw.reset(1), 11, 'ENHANCE_YOUR_CALM')
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
