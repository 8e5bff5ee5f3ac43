import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, toBinary } from '@bufbuild/protobuf'
import { BodyBudget } from '#agent/sockets/index.ts'
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
  GOAWAY,
  HEADERS,
  PING,
  setting,
  statusOf,
  WINDOW,
} from '#test/grpc-frames.ts'
import { grpcFrame, INVOKE_STREAM, invokeMessage } from '#test/grpc-http2.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { grpcBlock, RawH2, u32 } from '#test/raw-h2.ts'

// How long a peer may take its time, and with what.

/** Nothing of any answer is taken. */
const NO_WINDOW = setting(4, 0)
const STREAM = grpcBlock(INVOKE_STREAM)
const REFLECT = grpcBlock('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo')

test('a peer whose frames come is not given up because its answer to a PING is late; one within a header, or silent, is', async () => {
  await using scope = await grpcProxyScope({
    server: { keepaliveMs: 100, keepaliveTimeoutMs: 3_000 },
  })
  const { port } = scope.proxy
  using raw = await RawH2.greet(port)
  using within = await RawH2.greet(port)
  raw.send([HEADERS, END_HEADERS, 1, BLOCK])
  within.send([HEADERS, 0, 1, BLOCK])
  const turn = async (at: number): Promise<void> => {
    raw.send(at < ECHO.length ? [DATA, 0, 1, ECHO.subarray(at, at + 1)] : [WINDOW, 0, 0, u32(1)])
    // One for each look at the connection, and fewer than a header may have.
    if (at % 8 === 0) within.send([CONTINUATION, 0, 1])
    await sleep(50)
  }
  let at = 0
  for (; at < 400 && !within.ended; at += 1) await turn(at)
  // Both were asked at the same time: the next look would find the other one, too.
  for (const end = at + 20; at < end; at += 1) await turn(at)
  assert.ok(raw.frames.some(({ type, flags }) => type === PING && flags === 0))
  assert.ok(within.ended)
  assert.ok(!within.frames.some(({ type }) => type === GOAWAY))
  raw.send([DATA, END_STREAM, 1])
  assert.equal(await statusOf(raw, 1), '0')
  await eventually(() => raw.ended)
})

test('a streamed answer of which the caller takes nothing is given up, and its function cancelled', async () => {
  const budget = new BodyBudget(8 * 1024 * 1024)
  await using scope = await grpcProxyScope({ server: { stalledMs: 600, budget } })
  using deaf = await RawH2.greet(scope.proxy.port, NO_WINDOW)
  const endless = grpcFrame(invokeMessage('pieces', '', 'count=100000&bytes=65536'))
  deaf.send([HEADERS, END_HEADERS, 1, STREAM], [DATA, END_STREAM, 1, endless])
  assert.equal(await deaf.reset(1), CODE.cancel)
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.inFlight === 0)
  assert.equal(budget.bytes, 0)
})

test('a slow function, or caller, is not given up', async () => {
  // Both take longer in all; no pause of the caller's comes near it, even where the machine stands still for a while.
  await using scope = await grpcProxyScope({ server: { stalledMs: 3_000 } })
  using reader = await RawH2.greet(scope.proxy.port, setting(4, 1_000))
  const slow = grpcFrame(invokeMessage('pieces', '', 'count=2&bytes=5&ms=4000'))
  const more = grpcFrame(invokeMessage('pieces', '', 'count=1&bytes=12000'))
  reader.send([HEADERS, END_HEADERS, 1, STREAM], [DATA, END_STREAM, 1, slow])
  reader.send([HEADERS, END_HEADERS, 3, STREAM], [DATA, END_STREAM, 3, more])
  for (let n = 0; n < 46; n += 1) {
    await sleep(100)
    reader.send([WINDOW, 0, 3, u32(250)])
  }
  assert.equal(await statusOf(reader, 3), '0')
  assert.equal(await statusOf(reader, 1), '0')
})

test('a call of reflection whose caller asks on and takes nothing is given up, and all that it held given back', async () => {
  const budget = new BodyBudget(8 * 1024 * 1024)
  await using scope = await grpcProxyScope({ server: { stalledMs: 600, budget } })
  using raw = await RawH2.greet(scope.proxy.port, NO_WINDOW)
  const ask = create(ServerReflectionRequestSchema, {
    messageRequest: { case: 'fileByFilename', value: 'shoal.proto' },
  })
  const question = grpcFrame(toBinary(ServerReflectionRequestSchema, ask))
  const questions = Buffer.concat(Array.from({ length: 500 }, () => question))
  raw.send([HEADERS, END_HEADERS, 1, REFLECT], [DATA, 0, 1, questions], [DATA, 0, 1, questions])
  await eventually(() => budget.bytes > 64 * 1024)
  assert.equal(await raw.reset(1), CODE.cancel)
  assert.equal(budget.bytes, 0)
  assert.equal(scope.proxy.inFlight, 0)
})
