import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { DockerEngine } from '#agent/handlers/index.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { eventually } from '#test/eventually.ts'
import { echoing, handlerScope, type HandlerScope } from '#test/handler-scope.ts'
import { testImages } from '#test/images.ts'
import { socketRelay } from '#test/socket-relay.ts'
import { tempFolder } from '#test/temp.ts'

const within = (ms = 30_000): AbortSignal => AbortSignal.timeout(ms)

/** Started, called once and drained again. */
async function drained(scope: HandlerScope, files = echoing('nodejs', 'hello ')) {
  const handler = await scope.handler('nodejs', await scope.bundle(files))
  await handler.start()
  await scope.call(handler)
  await scope.drain(handler)
  return handler
}

async function stateIn(scope: HandlerScope, id: string): Promise<string | undefined> {
  return (await scope.engine.list(within())).find((one) => one.id === id)?.state
}

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`a paused handler, engine ${kind}`, () => {
    it('sleeps and answers again, many times, and is stopped from its sleep', async () => {
      await using scope = await handlerScope(kind)
      const handler = await drained(scope)
      for (let round = 0; round < 5; round++) {
        assert.equal(handler.pausable, true)
        await handler.pause(within())
        assert.deepEqual([handler.state.kind, handler.pausable], ['paused', false])
        // Docker may be told late of the resumption before, and mends it itself.
        await eventually(async () => (await stateIn(scope, handler.id)) === 'paused')
        await handler.resume(within())
        assert.equal(handler.state.kind, 'ready')
        assert.equal(await scope.call(handler, String(round)), `hello ${round}`)
        await scope.drain(handler)
      }
      await handler.pause(within())
      await handler.stop(within())
      assert.equal(handler.state.kind, 'stopped')
      assert.deepEqual(await scope.engine.list(within()), [])
      assert.deepEqual(scope.folders.read().ids, [])
    })

    it('is not paused while it serves, nor while a call goes on after its drain was given up', async () => {
      await using scope = await handlerScope(kind)
      const files = { 'index.mjs': 'export default () => new Promise(() => {})' }
      const handler = await scope.handler('nodejs', await scope.bundle(files))
      await assert.rejects(handler.pause(within()), TypeError)
      await handler.start()
      const call = scope.call(handler).catch(() => 'failed')
      assert.deepEqual([handler.state.kind, handler.pausable], ['serving', false])
      await assert.rejects(handler.pause(within()), TypeError)
      await handler.drain(scope.router.ensure('echo', scope.settings), 50)
      assert.deepEqual([handler.state.kind, handler.pausable], ['drained', false])
      await assert.rejects(handler.resume(within()), TypeError)
      await handler.stop(within())
      assert.equal(await call, 'failed')
    })

    it('serves again without a sleep when it was drained in vain', async () => {
      await using scope = await handlerScope(kind)
      const handler = await drained(scope)
      await handler.resume(within())
      assert.equal(await scope.call(handler, 'again'), 'hello again')
      await handler.stop(within())
    })

    // Not known to be paused: its agent was ended while it asked for that.
    for (const isKnown of [true, false]) {
      it(`is woken and taken over by the next agent, ${isKnown ? '' : 'not '}known to be paused`, async () => {
        await using scope = await handlerScope(kind)
        const handler = await drained(scope)
        await handler.pause(within())
        await handler.leave()
        const [record] = scope.folders.read().records
        assert.ok(record !== undefined)
        assert.equal(await stateIn(scope, handler.id), 'paused')
        const again = scope.found(record, { awakeMs: 50 })
        await again.adopt(isKnown)
        assert.equal(again.state.kind, 'ready')
        await eventually(async () => (await stateIn(scope, handler.id)) === 'running')
        assert.equal(await scope.call(again, 'you'), 'hello you')
        await scope.drain(again)
        await again.pause(within())
        await again.stop(within())
      })
    }

    it('fails when it ends in its sleep, and when it does not wake up', async () => {
      await using scope = await handlerScope(kind)
      const handler = await drained(scope)
      await handler.pause(within())
      await scope.makeEngine().stop(handler.id, 0, within())
      await eventually(() => handler.state.kind === 'failed')
      const other = await drained(scope)
      await other.pause(within())
      const resumed = other.resume(within())
      await scope.makeEngine().stop(other.id, 0, within())
      await resumed
      await eventually(() => other.state.kind === 'failed')
      for (const { id } of [handler, other]) await scope.folders.remove(id)
    })

    it('is stopped in whatever part of its way into sleep and out of it', async () => {
      await using scope = await handlerScope(kind)
      for (const afterMs of [0, 2, 10, 30]) {
        const handler = await drained(scope)
        const pausing = handler.pause(within())
        await sleep(afterMs)
        await handler.stop(within())
        await pausing
        assert.equal(handler.state.kind, 'stopped')
      }
      assert.deepEqual(await scope.engine.list(within()), [])
      assert.deepEqual(scope.folders.read().ids, [])
    })
  })
}

describe('a paused handler that is stopped', () => {
  it('is woken first, so that its function may clean up', async () => {
    await using scope = await handlerScope('process')
    const mark = join(scope.folder, 'cleaned')
    const files = {
      'index.mjs': `import { writeFileSync } from 'node:fs'
        process.on('exit', () => writeFileSync(process.env.MARK, 'up'))
        export default () => new Response('ok')`,
    }
    const handler = await scope.handler('nodejs', await scope.bundle(files), {
      env: { MARK: mark },
      timeouts: { shutdownMs: 20_000 },
    })
    await handler.start()
    await handler.pause(within())
    await handler.stop(within())
    assert.equal(await readFile(mark, 'utf8'), 'up')
  })
})

describe('a paused handler whose engine goes away', () => {
  it('stays paused, says why it cannot wake up, and answers when the engine is back', async () => {
    await using folder = await tempFolder()
    await using relay = await socketRelay(folder.join('d.sock'), '/var/run/docker.sock')
    await using scope = await handlerScope('docker', (installation) => {
      const images = { load: async () => testImages() }
      return new DockerEngine({ socketPath: relay.path, installation, images })
    })
    const handler = await drained(scope)
    await handler.pause(within())
    await relay.cut()
    await assert.rejects(handler.resume(within()), { code: 'ENGINE_UNAVAILABLE' })
    assert.equal(handler.state.kind, 'paused')
    await relay.mend()
    await eventually(async () => {
      await handler.resume(within())
      return true
    })
    assert.equal(await scope.call(handler, 'back'), 'hello back')
    await scope.drain(handler)
    await relay.cut()
    await assert.rejects(handler.pause(within()), { code: 'ENGINE_UNAVAILABLE' })
    assert.equal(handler.pausable, true)
    await relay.mend()
  })
})
