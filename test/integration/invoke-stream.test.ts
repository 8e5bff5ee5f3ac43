import assert from 'node:assert/strict'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import type { Body } from '#agent/invoke/index.ts'
import { eventually } from '#test/eventually.ts'
import { TYPE, errorBytes, frameBytes, responseBytes } from '#test/frame-peer.ts'
import type { FramePeer } from '#test/frame-peer.ts'
import { LinkScope, invocation } from '#test/invoke-scope.ts'

const WINDOW = 65_536
const bytes = (count: number, seed = 1): Buffer =>
  Buffer.from(Array.from({ length: count }, (_, index) => (index * 31 + seed) & 255))

describe('request bodies', () => {
  for (const size of [WINDOW, WINDOW + 1, 1_000_000]) {
    it(`a whole body of ${size} bytes arrives unchanged, never more than a window ahead`, async () => {
      await using scope = await LinkScope.open({ windowBytes: WINDOW })
      await using peer = await scope.ready()
      const sent = bytes(size)
      const answer = scope.router.invoke(invocation({ body: sent }))
      const received = await receiveBody(peer)
      assert(received.body.equals(sent))
      peer.send(responseBytes(received.id, 'ok'))
      assert.equal((await answer).status, 200)
      assert.equal((await scope.link()).inFlight, 0)
    })
  }

  it('a streamed body arrives unchanged and its source waits while the function does not read', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready()
    const chunks = Array.from({ length: 40 }, (_, index) => bytes(10_000, index))
    let pulled = 0
    const source = Readable.from(
      (function* pull() {
        for (const chunk of chunks) {
          pulled += 1
          yield chunk
        }
      })(),
      { objectMode: false, highWaterMark: 1 },
    )
    const answer = scope.router.invoke(invocation({ body: source }))
    const { id } = await peer.next(TYPE.request)
    await sleep(30)
    assert(pulled < 12, `${pulled} chunks were taken without a grant`)
    const received = await receiveBody(peer, id)
    assert(received.body.equals(Buffer.concat(chunks)))
    peer.send(responseBytes(id))
    await answer
  })

  it('a source that ends in a chunk for which there is no room yet is sent to its last byte', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready()
    const source = new PassThrough({ highWaterMark: 4 * WINDOW })
    const sent = bytes(3 * WINDOW + 1)
    source.end(sent)
    const answer = scope.router.invoke(invocation({ body: source }))
    const received = await receiveBody(peer)
    assert(received.body.equals(sent))
    peer.send(responseBytes(received.id))
    await answer
  })

  it('a streamed body above the limit is BODY_TOO_LARGE and cancelled', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready({ bodyBytesMax: 1_000 })
    const source = Readable.from([Buffer.alloc(600), Buffer.alloc(600)])
    const call = scope.router.invoke(invocation({ body: source }))
    await assert.rejects(call, (error) => Fault.is(error, 'BODY_TOO_LARGE'))
    const cancel = await peer.next(TYPE.cancel)
    assert.equal(cancel.payload[0], 0)
    peer.send(errorBytes(cancel.id, 3, 'cancelled'))
    await eventually(() => scope.server.link?.inFlight === 0)
  })

  it('a source that breaks is CALLER_GONE, or the fault that it breaks with', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const rows = [
      { error: new Error('reset'), code: 'CALLER_GONE' },
      { error: new Fault('REQUEST_INVALID', 'chunked badly'), code: 'REQUEST_INVALID' },
      { error: undefined, code: 'CALLER_GONE' },
    ] as const
    for (const { error, code } of rows) {
      const source = new PassThrough()
      const call = scope.router.invoke(invocation({ body: source }))
      const { id } = await peer.next(TYPE.request)
      source.destroy(error)
      await assert.rejects(call, (fault) => Fault.is(fault, code))
      assert.equal((await peer.next(TYPE.cancel)).id, id)
      peer.send(errorBytes(id, 3, 'cancelled'))
    }
    const destroyed = new PassThrough()
    destroyed.destroy()
    const late = scope.router.invoke(invocation({ body: destroyed }))
    await assert.rejects(late, (fault) => Fault.is(fault, 'CALLER_GONE'))
  })

  it('a function that answers early gets an empty END, and the id is used again after that', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready()
    const source = new PassThrough()
    source.write('begin')
    const call = scope.router.invoke(invocation({ body: source }))
    const { id } = await peer.next(TYPE.request)
    peer.send(responseBytes(id, 'enough'))
    assert.deepEqual((await call).body, Buffer.from('enough'))
    let end = await peer.next(TYPE.data)
    while (end.flags === 0) end = await peer.next(TYPE.data)
    assert.deepEqual([end.id, end.payload.length], [id, 0])
    source.write('more')
    const next = scope.router.invoke(invocation())
    const again = await peer.next(TYPE.request)
    assert.equal(again.id, id)
    // A grant for the call before crossed the end on the wire.
    peer.send(frameBytes(TYPE.window, id, Buffer.from([0, 0, 0, 5])), responseBytes(id))
    await next
    source.destroy(new Error('nobody listens any more'))
  })
})

describe('answers', () => {
  it('a streamed answer arrives unchanged, granted as it is read', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation())
    const { id } = await peer.next(TYPE.request)
    const sent = bytes(1_000_000)
    const sending = sendBody(peer, id, sent)
    const { body } = await call
    assert(body instanceof Readable)
    assert((await buffer(body)).equals(sent))
    await sending
    assert.equal((await scope.link()).inFlight, 0)
  })

  it('a reader who does not read holds at most a window; reading later gets all', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation())
    const { id } = await peer.next(TYPE.request)
    const sent = bytes(300_000)
    const sending = sendBody(peer, id, sent)
    const { body } = await call
    assert(body instanceof Readable)
    await sleep(50)
    assert(body.readableLength <= WINDOW, String(body.readableLength))
    assert((await buffer(body)).equals(sent))
    await sending
  })

  it('a reader who goes cancels the call; what still comes is taken so that the runner gets to its end', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation())
    const { id } = await peer.next(TYPE.request)
    const sending = sendBody(peer, id, bytes(300_000))
    const { body } = await call
    assert(body instanceof Readable)
    body.destroy()
    const cancel = await peer.next(TYPE.cancel)
    assert.deepEqual([cancel.id, cancel.payload[0]], [id, 0])
    await sending
    await eventually(() => scope.server.link?.inFlight === 0)
    assert.equal(scope.router.lane('echo')?.stats().calls.cancelled, 1)
  })

  it('an answer above the limit is FUNCTION_OUTPUT_TOO_LARGE: at its head when that tells, else in the stream', async () => {
    await using scope = await LinkScope.open({ windowBytes: WINDOW })
    await using peer = await scope.ready({ bodyBytesMax: 50_000 })
    for (const headers of [[], ['content-length', '60000']]) {
      const call = scope.router.invoke(invocation())
      const { id } = await peer.next(TYPE.request)
      peer.send(responseBytes(id, bytes(30_000), { headers, end: false }))
      peer.send(frameBytes(TYPE.data, id, bytes(30_000)))
      const failure = headers.length > 0 ? call : call.then(({ body }) => readAll(body))
      await assert.rejects(failure, (error) => Fault.is(error, 'FUNCTION_OUTPUT_TOO_LARGE'))
      assert.equal((await peer.next(TYPE.cancel)).payload[0], 2)
      peer.send(errorBytes(id, 3, 'cancelled'))
    }
    const whole = scope.router.invoke(invocation())
    peer.send(responseBytes((await peer.next(TYPE.request)).id, bytes(50_001)))
    await assert.rejects(whole, (error) => Fault.is(error, 'FUNCTION_OUTPUT_TOO_LARGE'))
    await eventually(() => scope.server.link?.inFlight === 0)
  })

  it('a body that breaks off fails the stream with the function’s error', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation())
    const { id } = await peer.next(TYPE.request)
    peer.send(responseBytes(id, 'half', { end: false }), errorBytes(id, 0, 'Error: half way'))
    const { body } = await call
    assert(body instanceof Readable)
    await assert.rejects(buffer(body), (error) => Fault.is(error, 'FUNCTION_ERROR'))
    assert.equal(scope.router.lane('echo')?.stats().calls.failed, 1)
  })

  it('a body that is not complete at the deadline breaks, and the call is cancelled', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation({ deadlineMs: 2_000 }))
    const { id } = await peer.next(TYPE.request)
    peer.send(responseBytes(id, 'half', { end: false }))
    const { body } = await call
    assert(body instanceof Readable)
    await assert.rejects(buffer(body), (error) => Fault.is(error, 'DEADLINE_EXCEEDED'))
    assert.equal((await peer.next(TYPE.cancel)).payload[0], 1)
    peer.send(frameBytes(TYPE.data, id, 'rest', { end: true }))
    await eventually(() => scope.server.link?.inFlight === 0)
    assert.equal(scope.router.lane('echo')?.stats().calls.timedOut, 1)
  })

  it('a reader who listens only after the body broke still learns it, and the process lives', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const call = scope.router.invoke(invocation())
    const { id } = await peer.next(TYPE.request)
    peer.send(responseBytes(id, 'half', { end: false }))
    const { body } = await call
    assert(body instanceof Readable)
    peer.socket.destroy()
    await eventually(() => body.destroyed)
    assert(Fault.is(body.errored, 'FUNCTION_EXITED'))
    await assert.rejects(buffer(body), (error) => Fault.is(error, 'FUNCTION_EXITED'))
  })
})

async function readAll(body: Body): Promise<Buffer> {
  return Buffer.isBuffer(body) ? body : buffer(body)
}

/** Takes a request's body as a careful runner: grants half windows, and fails when more than granted arrives. */
async function receiveBody(
  peer: FramePeer,
  known?: number,
): Promise<{ readonly id: number; readonly body: Buffer }> {
  const parts: Buffer[] = []
  let granted = WINDOW
  let received = 0
  let id = known ?? 0
  let ended = false
  if (known === undefined) {
    const request = await peer.next(TYPE.request)
    id = request.id
    parts.push(request.payload.subarray(6 + request.payload.readUInt16BE(4)))
    received = parts[0]?.length ?? 0
    ended = request.flags === 1
  }
  while (!ended) {
    const used = received - (granted - WINDOW)
    if (used >= WINDOW / 2) {
      granted += used
      const payload = Buffer.alloc(4)
      payload.writeUInt32BE(used)
      peer.send(frameBytes(TYPE.window, id, payload))
    }
    const frame = await peer.next(TYPE.data)
    assert.equal(frame.id, id)
    parts.push(frame.payload)
    received += frame.payload.length
    assert(received <= granted, 'more than granted')
    ended = frame.flags === 1
  }
  return { id, body: Buffer.concat(parts) }
}

/** Sends an answer's body as a careful runner: waits for grants. */
async function sendBody(peer: FramePeer, id: number, body: Buffer): Promise<void> {
  let credit = WINDOW - 100
  let at = 100
  peer.send(responseBytes(id, body.subarray(0, 100), { end: false }))
  while (at < body.length) {
    while (credit === 0) {
      const grant = await peer.next(TYPE.window)
      assert.equal(grant.id, id)
      credit += grant.payload.readUInt32BE(0)
    }
    const size = Math.min(credit, 20_000, body.length - at)
    peer.send(frameBytes(TYPE.data, id, body.subarray(at, at + size)))
    credit -= size
    at += size
  }
  peer.send(frameBytes(TYPE.data, id, '', { end: true }))
}
