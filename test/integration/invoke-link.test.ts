import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import { RunnerServer } from '#agent/invoke/index.ts'
import { eventually } from '#test/eventually.ts'
import { FramePeer, TYPE, errorBytes, frameBytes, responseBytes } from '#test/frame-peer.ts'
import { LANE_SETTINGS, LinkScope, invocation, runnerInit } from '#test/invoke-scope.ts'

describe('opening', () => {
  it('a runner says HELLO, gets WELCOME and INIT, says READY, and takes a call', async () => {
    await using scope = await LinkScope.open()
    assert.equal((await stat(scope.socketPath)).mode & 0o777, 0o666)
    await using peer = await FramePeer.connect(scope.socketPath)
    peer.hello(scope.handler)
    const welcome = await peer.next(TYPE.welcome)
    assert.deepEqual(JSON.parse(welcome.payload.toString()), {
      protocol: 1,
      windowBytes: 262_144,
      payloadBytesMax: 1_114_112,
    })
    const link = await scope.link()
    assert.equal(link.state, 'greeted')
    const starting = link.init(runnerInit({ env: { A: 'ü' } }))
    const init = await peer.next(TYPE.init)
    assert.deepEqual(JSON.parse(init.payload.toString()), runnerInit({ env: { A: 'ü' } }))
    peer.send(frameBytes(TYPE.ready, 0, '{"ok":true,"later":1}'))
    await starting

    scope.router.ensure('echo', LANE_SETTINGS).attach(link, 'r1-0a1b2c3d')
    const answer = scope.router.invoke(invocation({ path: '/a', query: 'b=c' }))
    const request = await peer.next(TYPE.request)
    assert.equal(request.flags, 1)
    assert.deepEqual(headLines(request.payload), [
      'POST',
      '/a',
      'b=c',
      'content-type',
      'text/plain',
      'shoal-request-id',
      'r-1',
      'shoal-protocol',
      'http',
    ])
    const deadlineMs = request.payload.readUInt32BE(0)
    assert(deadlineMs > 9_000 && deadlineMs <= 10_000, String(deadlineMs))
    peer.send(responseBytes(request.id, 'hi', { status: 201, headers: ['x-a', 'b'] }))
    assert.deepEqual(await answer, {
      status: 201,
      headers: ['x-a', 'b'],
      body: Buffer.from('hi'),
    })
  })

  it('a function that cannot be loaded is FUNCTION_LOAD with its error, and the link stays', async () => {
    await using scope = await LinkScope.open()
    await using peer = await FramePeer.greeted(scope.socketPath, scope.handler)
    const link = await scope.link()
    const starting = link.init(runnerInit())
    peer.send(frameBytes(TYPE.ready, 0, '{"ok":false,"error":"SyntaxError: x\\n  at y"}'))
    await assert.rejects(starting, (error) => {
      assert(Fault.is(error, 'FUNCTION_LOAD'))
      assert.equal(error.message, 'SyntaxError: x')
      assert.equal(error.details['text'], 'SyntaxError: x\n  at y')
      return true
    })
    assert.equal(link.state, 'failed')
    link.shutdown()
    await peer.next(TYPE.shutdown)
  })

  it('whatever a runner says of its failure, it can be encoded', async () => {
    await using scope = await LinkScope.open()
    await using peer = await FramePeer.greeted(scope.socketPath, scope.handler)
    const link = await scope.link()
    const starting = link.init(runnerInit())
    const error = `half \\ud800\\n${'a🐟'.repeat(10_000)}`
    peer.send(frameBytes(TYPE.ready, 0, `{"ok":false,"error":"${error}"}`))
    await assert.rejects(starting, (fault) => {
      assert(Fault.is(fault, 'FUNCTION_LOAD'))
      assert.equal(fault.message, 'half \ufffd')
      assert.ok(String(fault.details['text']).isWellFormed())
      return true
    })
  })

  it('a runner that ends before READY is HANDLER_START; a caller may stop waiting', async () => {
    await using scope = await LinkScope.open()
    const peer = await FramePeer.greeted(scope.socketPath, scope.handler)
    const link = await scope.link()
    const impatient = link.init(runnerInit(), AbortSignal.timeout(20))
    await assert.rejects(impatient, { name: 'TimeoutError' })
    const patient = assert.rejects(link.ready(), (error) => Fault.is(error, 'HANDLER_START'))
    await peer[Symbol.asyncDispose]()
    await patient
    assert.deepEqual(scope.ends, [{ kind: 'exited', reason: 'The runner closed its connection' }])
  })

  it('a runner that kept its function is ready again without INIT, and replaces the older link', async () => {
    await using scope = await LinkScope.open()
    await using older = await scope.ready()
    const first = scope.links[0]
    await using newer = await FramePeer.greeted(scope.socketPath, scope.handler, 'ready')
    newer.send(frameBytes(TYPE.ready, 0, '{"ok":true}'))
    const second = await eventually(() => scope.links[1])
    await second.ready()
    await older.ended()
    assert.equal(first?.state, 'closed')
    assert.equal(scope.ends[0]?.kind, 'replaced')
    assert.equal(scope.server.link, second)
  })

  it('log lines carry the request id of their call', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const answer = scope.router.invoke(invocation({ requestId: 'r-77' }))
    const { id } = await peer.next(TYPE.request)
    peer.send(frameBytes(TYPE.log, 0, '\u0001started'))
    peer.send(frameBytes(TYPE.log, id, '\u0003grüße'), responseBytes(id))
    peer.send(frameBytes(TYPE.log, id, '\u0009late'))
    await answer
    await eventually(() => scope.lines.length === 3)
    assert.deepEqual(scope.lines, [
      { level: 'info', request: undefined, text: 'started' },
      { level: 'error', request: 'r-77', text: 'grüße' },
      { level: 'info', request: 'r-77', text: 'late' },
    ])
  })

  it('the whole of what a function failed with is in its log', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const failed = scope.router.invoke(invocation({ requestId: 'r-78' }))
    const { id } = await peer.next(TYPE.request)
    peer.send(errorBytes(id, 0, 'Error: kaputt\n    at fn (index.js:1)\n'))
    await assert.rejects(failed, (error) => Fault.is(error, 'FUNCTION_ERROR'))
    await eventually(() => scope.lines.length === 2)
    assert.deepEqual(scope.lines, [
      { level: 'error', request: 'r-78', text: 'Error: kaputt' },
      { level: 'error', request: 'r-78', text: '    at fn (index.js:1)' },
    ])
  })

  it('PING is answered, and ping() measures the way or gives up', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const link = await scope.link()
    peer.send(frameBytes(TYPE.ping, 9, 'abc'))
    const pong = await peer.next(TYPE.pong)
    assert.deepEqual([pong.id, pong.payload.toString()], [9, 'abc'])
    const startedMs = performance.now()
    const ping = link.ping(10_000)
    peer.send(frameBytes(TYPE.pong, (await peer.next(TYPE.ping)).id))
    const measuredMs = await ping
    assert(measuredMs >= 0 && measuredMs <= performance.now() - startedMs)
    await assert.rejects(link.ping(20), (error) => Fault.is(error, 'FUNCTION_UNAVAILABLE'))
  })
})

describe('who is turned away', () => {
  it('the wrong handler, and a version that we do not have, are told why', async () => {
    await using scope = await LinkScope.open()
    for (const [more, reason] of [
      [{ handler: 'other' }, /names handler other/],
      [{ protocol: { min: 2, max: 3 } }, /No common protocol version/],
    ] as const) {
      await using peer = await FramePeer.connect(scope.socketPath)
      peer.hello(scope.handler, more)
      const answer = JSON.parse((await peer.next(TYPE.welcome)).payload.toString())
      assert.equal(answer.protocol, 0)
      assert.match(answer.error, reason)
      await peer.ended()
    }
    assert.equal(scope.refused.length, 2)
    assert.equal(scope.links.length, 0)
  })

  it('one that says nothing is closed after the timeout, and a fifth at once', async () => {
    await using scope = await LinkScope.open({ helloTimeoutMs: 60 })
    const peers = await Promise.all(
      Array.from({ length: 5 }, () => FramePeer.connect(scope.socketPath)),
    )
    await Promise.all(peers.map((peer) => peer.ended()))
    assert.deepEqual(scope.refused.toSorted(), [
      'More than 4 connections without HELLO',
      ...Array.from({ length: 4 }, () => 'No HELLO within 60 ms'),
    ])
  })

  it('a path that is too long, or taken by a file, is refused with what to do', async () => {
    const options = { handlerId: 'h', onLink: () => {} }
    const long = `/tmp/${'x'.repeat(103)}`
    await assert.rejects(RunnerServer.listen({ ...options, socketPath: long }), (error) => {
      assert(Fault.is(error, 'CONFIG_INVALID'))
      assert.match(error.message, /shorter data folder/)
      return true
    })
    await assert.rejects(RunnerServer.listen({ ...options, socketPath: '/tmp' }), (error) =>
      Fault.is(error, 'STORAGE'),
    )
  })

  it('a socket file that a killed agent left behind is no obstacle; close removes ours', async () => {
    await using scope = await LinkScope.open()
    const other = await RunnerServer.listen({
      socketPath: scope.socketPath,
      handlerId: scope.handler,
      onLink: () => {},
    })
    await using peer = await FramePeer.connect(scope.socketPath)
    await other.close()
    await peer.ended()
    await assert.rejects(stat(scope.socketPath), { code: 'ENOENT' })
  })
})

describe('ends', () => {
  it('calls in flight get FUNCTION_EXITED at once when the runner dies', async () => {
    await using scope = await LinkScope.open()
    await using peer = await scope.ready()
    const calls = ['a', 'b'].map((requestId) => scope.router.invoke(invocation({ requestId })))
    await peer.next(TYPE.request)
    const settled = Promise.allSettled(calls)
    peer.socket.destroy()
    for (const outcome of await settled) {
      assert(outcome.status === 'rejected')
      assert(Fault.is(outcome.reason, 'FUNCTION_EXITED'))
    }
    await sleep(0)
    assert.equal(scope.ends[0]?.kind, 'exited')
  })
})

function headLines(payload: Buffer): readonly string[] {
  return payload
    .subarray(6, 6 + payload.readUInt16BE(4))
    .toString()
    .split('\n')
}
