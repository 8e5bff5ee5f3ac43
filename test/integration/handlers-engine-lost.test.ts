import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import {
  answering,
  assignmentOf,
  call,
  makeEngine,
  nodeBed,
  reported,
  startNode,
} from '#test/reconcile-scope.ts'
import { socketRelay } from '#test/socket-relay.ts'

const DOCKER = '/var/run/docker.sock'

describe('reconciler when the engine goes away', () => {
  it('lets handlers that still run answer, and mends everything when the engine is back', async () => {
    await using bed = await nodeBed('docker')
    await using relay = await socketRelay(join(bed.folder, 'docker.sock'), DOCKER)
    await using node = await startNode({ ...bed, dockerSocket: relay.path })
    const lasting = await assignmentOf(node.source, 'lasting', answering('lasting'))
    const ended = await assignmentOf(node.source, 'ended', answering('ended'))
    node.reconciler.setDesired([lasting, ended])
    for (const fn of ['lasting', 'ended']) await reported(node, fn, 'ready')

    await relay.cut()
    await eventually(() => node.complaints.some((line) => line.startsWith('engine lost')))
    assert.equal(await call(node.router, 'lasting'), 'lasting')
    const later = await assignmentOf(node.source, 'later', answering('later'))
    node.reconciler.setDesired([lasting, ended, later])
    await using direct = makeEngine(bed)
    const before = await direct.list(AbortSignal.timeout(60_000))
    const victim = before.find(({ fn }) => fn === 'ended')?.id ?? ''
    await direct.stop(victim, 0, AbortSignal.timeout(60_000))
    await eventually(
      () => node.reconciler.report().find(({ fn }) => fn === 'ended')?.state !== 'ready',
    )
    // It waits for the engine, not for a deadline: the call is answered by the handler that comes.
    const waiting = call(node.router, 'ended')

    await relay.mend()
    assert.equal(await waiting, 'ended')
    for (const fn of ['lasting', 'ended', 'later']) await reported(node, fn, 'ready')
    assert.equal(await call(node.router, 'later'), 'later')
    await node.reconciler.settled(AbortSignal.timeout(30_000))
    const now = await direct.list(AbortSignal.timeout(60_000))
    assert.deepEqual(now.map(({ fn }) => fn ?? '').toSorted(), ['ended', 'lasting', 'later'])
    const idOf = (list: typeof now, name: string) => list.find(({ fn }) => fn === name)?.id
    assert.equal(idOf(now, 'lasting'), idOf(before, 'lasting'))
  })

  it('starts without an engine, says so, and goes on when there is one', async () => {
    await using bed = await nodeBed('docker')
    await using relay = await socketRelay(join(bed.folder, 'docker.sock'), DOCKER)
    await relay.cut()
    await using node = await startNode({ ...bed, dockerSocket: relay.path })
    node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering('hello'))])
    const report = await reported(node, 'hello', 'failed')
    assert.equal(report.reason?.code, 'ENGINE_UNAVAILABLE')
    const waiting = call(node.router, 'hello')
    await relay.mend()
    assert.equal(await waiting, 'hello')
    await reported(node, 'hello', 'ready')
  })
})

describe('what cannot run here', () => {
  it('a function that must have containers, on plain processes: says so and starts nothing', async () => {
    await using bed = await nodeBed('process')
    await using node = await startNode(bed)
    const files = answering('hello')
    const strict = await assignmentOf(node.source, 'strict', files, { requireContainers: true })
    const other = await assignmentOf(node.source, 'other', files)
    node.reconciler.setDesired([strict, other])
    const report = await reported(node, 'strict', 'failed')
    assert.equal(report.reason?.code, 'CONTAINERS_REQUIRED')
    assert.match(report.reason?.message ?? '', /install Docker/)
    await reported(node, 'other', 'ready')
    await assert.rejects(call(node.router, 'strict'), {
      code: 'FUNCTION_UNAVAILABLE',
      message: /containers/,
    })
    const left = await node.engine.list(AbortSignal.timeout(60_000))
    assert.deepEqual(
      left.map(({ fn }) => fn),
      ['other'],
    )
  })

  it('a runtime that this host lacks: says what to do', async () => {
    await using bed = await nodeBed('process')
    await using node = await startNode(bed)
    const hello = await assignmentOf(node.source, 'hello', answering('hello'))
    node.reconciler.setDesired([{ ...hello, runtime: 'python3' }])
    const report = await reported(node, 'hello', 'failed')
    assert.equal(report.reason?.code, 'IMAGE_MISSING')
    assert.match(report.reason?.message ?? '', /npm start/)
  })

  it('a data folder whose path is too long for sockets: names the setting', async () => {
    await using bed = await nodeBed('process')
    const folder = join(bed.folder, 'a'.repeat(80))
    await mkdir(folder)
    await assert.rejects(startNode({ ...bed, folder }), (error) => {
      assert.ok(Fault.is(error, 'CONFIG_INVALID'))
      assert.match(error.message, /SHOAL_DATA/)
      return true
    })
  })
})
