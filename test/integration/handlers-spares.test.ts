import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { DockerEngine } from '#agent/handlers/index.ts'
import { RUNTIMES, type EngineKind } from '#shared/schemas/names.ts'
import { Fault } from '#shared/fault.ts'
import { watching } from '#test/engine-bed.ts'
import { eventually } from '#test/eventually.ts'
import { echoing, handlerScope, stocked } from '#test/handler-scope.ts'
import { testImages } from '#test/images.ts'

const inode = async (path: string): Promise<number> => (await stat(path)).ino
const within = (ms = 30_000): AbortSignal => AbortSignal.timeout(ms)

/** Lists what a handler can see of code: its own folder and, where there is one, the folder of all handlers. */
const PRYING = {
  'index.mjs': `
    import { readdirSync } from 'node:fs'
    import { dirname, join } from 'node:path'
    const own = dirname(process.env.SHOAL_SOCKET)
    const list = (folder) => { try { return readdirSync(folder) } catch (error) { return error.code } }
    export default () => Response.json({ own: list(own), fn: list(join(own, 'fn')), all: list(join(own, '..')) })`,
}

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`warm spares, engine ${kind}`, () => {
    it('become handlers of every runtime, with their own id and nothing left over', async () => {
      await using scope = await handlerScope(kind)
      const pool = scope.pool()
      const wants = await Promise.all(RUNTIMES.map((runtime) => scope.want(runtime)))
      await stocked(pool, { wants, memoryMiBMax: 1_000, calm: true }, RUNTIMES.length)
      assert.deepEqual(scope.folders.read().records, [], 'a spare is nobody to the next agent')
      for (const runtime of RUNTIMES) {
        const bundle = await scope.bundle(echoing(runtime, `${runtime} `))
        const handler = await scope.handler(runtime, bundle, { fn: runtime, pool })
        await handler.start()
        assert.deepEqual([handler.state.kind, handler.launched], ['ready', true])
        assert.equal(handler.timings.engineMs, undefined, 'nothing was started for it')
        assert.equal(await scope.call(handler, 'x'), `${runtime} x`)
        const records = scope.folders.read().records.filter(({ id }) => id === handler.id)
        assert.deepEqual(records, [handler.record])
        assert.equal([...pool.ids].includes(handler.id), false)
        await handler.stop(within())
      }
      assert.equal(pool.waiting, 0)
      await pool.close()
      assert.deepEqual(await scope.engine.list(within()), [])
      assert.deepEqual(scope.folders.read().ids, [])
    })

    it('answer with the code of their own function, and never see that of another', async () => {
      await using scope = await handlerScope(kind)
      const pool = scope.pool({ count: 2 })
      const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
      await stocked(pool, need, 2)
      const secret = await scope.bundle({ ...echoing('nodejs', 'other '), 'secret.txt': 'secret' })
      const other = await scope.handler('nodejs', secret, { fn: 'other', pool })
      await other.start()
      const prying = await scope.handler('nodejs', await scope.bundle(PRYING), {
        fn: 'prying',
        pool,
      })
      await prying.start()
      assert.equal(await scope.call(other, 'x'), 'other x')
      const seen = JSON.parse(await scope.call(prying))
      assert.deepEqual(seen.fn, ['index.mjs'])
      if (kind === 'docker') {
        assert.deepEqual(seen.own.toSorted(), ['fn', 'handler.json', 's'])
        assert.equal(seen.all.includes('shoal'), true, 'it sees the root of its container')
        assert.equal(seen.all.includes(other.id), false)
      }
      await other.stop(within())
      await prying.stop(within())
    })

    it('are taken over by the next agent when theirs was cut off on the way to INIT', async () => {
      await using scope = await handlerScope(kind)
      const pool = scope.pool()
      const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
      await stocked(pool, need, 1)
      const bundle = await scope.bundle(echoing('nodejs', 'hello '))
      const spare = pool.take(await scope.want('nodejs', { cpus: 0.5 }))
      assert.ok(spare !== undefined)
      const changes = { limits: { cpus: 0.5 } }
      const record = { ...scope.record('nodejs', bundle, changes), id: spare.id }
      // As an agent that is killed after the first thing that it does with a spare.
      await scope.folders.write(record)
      await spare.handOver(() => {}).server.close()
      const next = scope.found(record)
      await next.adopt(false)
      assert.equal(await scope.call(next, 'you'), 'hello you')
      await next.stop(within())
    })
  })
}

describe('the pool of spares', () => {
  it('keeps to its memory, prefers what was taken last, and gives up spares when it shrinks', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool({ count: 2 })
    const small = await scope.want('nodejs', { memoryMiB: 100 })
    const large = await scope.want('nodejs', { memoryMiB: 200 })
    const need = { wants: [small, large], calm: true }
    await stocked(pool, { ...need, memoryMiBMax: 99 }, 0)
    await stocked(pool, { ...need, memoryMiBMax: 100 }, 1)
    await stocked(pool, { ...need, memoryMiBMax: 400 }, 3)
    await stocked(pool, { ...need, memoryMiBMax: 600 }, 4)
    await stocked(pool, { ...need, memoryMiBMax: 350 }, 2)
    const taken = pool.take(large)
    assert.equal(taken?.limits.memoryMiB, 200)
    await stocked(pool, { ...need, memoryMiBMax: 250 }, 1)
    assert.equal(pool.take(small), undefined)
    await stocked(pool, { ...need, memoryMiBMax: 0 }, 0)
    await taken?.stop()
    assert.deepEqual(await scope.engine.list(within()), [])
  })

  it('gives only what fits: runtime, image and memory', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool()
    const want = await scope.want('nodejs')
    await stocked(pool, { wants: [want], memoryMiBMax: 1_000, calm: true }, 1)
    assert.equal(pool.take({ ...want, identity: 'another image' }), undefined)
    assert.equal(pool.take(await scope.want('python3')), undefined)
    assert.equal(pool.take(await scope.want('nodejs', { memoryMiB: 64 })), undefined)
    const spare = pool.take(await scope.want('nodejs', { cpus: 0.5, pids: 8 }))
    assert.ok(spare !== undefined)
    assert.equal(pool.take(want), undefined)
    await spare.stop()
  })

  it('starts nothing while others wait for the engine, one at a time else, and none at all when told so', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool({ count: 3 })
    const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000 }
    pool.tend({ ...need, calm: false })
    assert.deepEqual([...pool.ids], [])
    pool.tend({ ...need, calm: true })
    pool.tend({ ...need, calm: true })
    assert.equal([...pool.ids].length, 1)
    await stocked(pool, { ...need, calm: true }, 3)
    const none = scope.pool({ count: 0 })
    none.tend({ ...need, calm: true })
    assert.deepEqual([...none.ids], [])
  })

  it('keeps spares for a while for what is not in use any more, then ends them', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool({ latelyMs: 1_500 })
    const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
    await stocked(pool, need, 1)
    pool.tend({ ...need, wants: [] })
    assert.equal(pool.waiting, 1)
    await eventually(() => [...pool.ids].length === 0)
    assert.deepEqual(await scope.engine.list(within()), [])
  })

  it('replaces spares when their image changes', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool()
    const want = await scope.want('nodejs')
    const need = { memoryMiBMax: 1_000, calm: true }
    await stocked(pool, { ...need, wants: [want] }, 1)
    const [before] = pool.ids
    const newer = { ...want, identity: 'newer' }
    pool.tend({ ...need, wants: [newer] })
    assert.equal(pool.take(want), undefined)
    await eventually(() => pool.waiting === 1)
    assert.notEqual([...pool.ids][0], before)
    assert.equal((await scope.engine.list(within())).length, 1)
  })

  it('replaces a spare that died, after a pause that grows', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool()
    const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
    await stocked(pool, need, 1)
    const pauses: number[] = []
    for (let death = 0; death < 2; death++) {
      const [id = ''] = pool.ids
      const diedAtMs = performance.now()
      await scope.makeEngine().stop(id, 0, within())
      await eventually(() => pool.waiting === 1 && [...pool.ids][0] !== id)
      pauses.push(performance.now() - diedAtMs)
    }
    const [first = 0, second = 0] = pauses
    assert.ok(first >= 1_000 && second >= 2_000, `pauses ${first} and ${second} ms`)
    assert.deepEqual(scope.folders.read().ids, [...pool.ids])
  })

  it('ends all of them when it closes, also one that is being started', async () => {
    await using scope = await handlerScope('docker')
    const pool = scope.pool({ count: 2 })
    const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
    pool.tend(need)
    await eventually(() => pool.waiting === 1 && [...pool.ids].length === 2)
    await pool.close()
    assert.deepEqual([...pool.ids], [])
    assert.deepEqual(await scope.engine.list(within()), [])
    assert.deepEqual(scope.folders.read().ids, [])
    pool.tend(need)
    assert.deepEqual([...pool.ids], [])
  })
})

describe('a handler made of a spare', () => {
  it('may use what its function may use and no more: memory, processes', async () => {
    // A busy machine's daemon may hear late why a handler was killed.
    await using scope = await handlerScope('docker', (installation) => {
      const images = { load: async () => testImages() }
      const socketPath = '/var/run/docker.sock'
      return new DockerEngine({ socketPath, installation, images, oomNewsMs: 5_000 })
    })
    const pool = scope.pool()
    const files = {
      'fn.py': `
import subprocess
def fn(input):
    if input == "memory":
        return str(len(bytearray(b"x") * (200 << 20)))
    kept = []
    try:
        for _ in range(60): kept.append(subprocess.Popen(["sleep", "60"]))
    except OSError as error:
        return f"{len(kept)} {type(error).__name__}"
    finally:
        for one in kept: one.kill()
    return "all"
`,
    }
    const bundle = await scope.bundle(files)
    const wide = { wants: [await scope.want('python3', { pids: 200 })], memoryMiBMax: 1_000 }
    for (const body of ['processes', 'memory']) {
      await stocked(pool, { ...wide, calm: true }, 1)
      const handler = await scope.handler('python3', bundle, {
        limits: { pids: 20 },
        // Longer than that news takes: it would be said to have lost its connection.
        timeouts: { relinkMs: 20_000 },
        pool,
      })
      await handler.start()
      if (body === 'processes') {
        assert.match(await scope.call(handler, body), /^1\d BlockingIOError$/)
      } else {
        await assert.rejects(scope.call(handler, body), (error) =>
          Fault.is(error, 'FUNCTION_EXITED'),
        )
        await eventually(() => handler.state.kind === 'failed', { timeoutMs: 60_000 })
        assert.ok(handler.state.kind === 'failed')
        assert.match(handler.state.fault.message, /ran out of its 128 MiB/)
      }
      await handler.stop(within())
    }
  })

  it('shares the files of the bundle and cannot change them', async () => {
    await using scope = await handlerScope('docker')
    const pool = scope.pool()
    const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
    await stocked(pool, need, 1)
    const files = {
      'index.mjs': `
        import * as fs from 'node:fs'
        const tried = (what) => { try { what(); return 'done' } catch (error) { return error.code } }
        export default () => Response.json([
          tried(() => fs.appendFileSync('/shoal/fn/lib/data.txt', 'mine')),
          tried(() => fs.unlinkSync('/shoal/fn/lib/data.txt')),
          tried(() => fs.chmodSync('/shoal/fn/lib/data.txt', 0o777)),
          tried(() => fs.readFileSync('/shoal/handler.json')),
        ])`,
      'lib/data.txt': 'data',
    }
    const bundle = await scope.bundle(files)
    const handler = await scope.handler('nodejs', bundle, { pool })
    await handler.start()
    const inside = join(scope.folders.folderOf(handler.id), 'fn')
    assert.equal(
      await inode(join(inside, 'lib/data.txt')),
      await inode(join(bundle, 'lib/data.txt')),
    )
    const tried: string[] = JSON.parse(await scope.call(handler))
    assert.equal(tried.length, 4)
    for (const code of tried) assert.match(code, /^(EROFS|EACCES)$/)
    assert.equal(await readFile(join(bundle, 'lib/data.txt'), 'utf8'), 'data')
    await handler.stop(within())
    assert.deepEqual((await readdir(bundle)).toSorted(), ['index.mjs', 'lib'])
    assert.equal(existsSync(inside), false)
  })

  it('is removed with the spare when it is never started, and fails at once when the spare has ended', async () => {
    await using scope = await handlerScope('process')
    const pool = scope.pool({ count: 2 })
    const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
    await stocked(pool, need, 2)
    const bundle = await scope.bundle(echoing('nodejs', 'hello '))
    const unwanted = await scope.handler('nodejs', bundle, { pool })
    await unwanted.stop(within())
    assert.equal(unwanted.state.kind, 'stopped')
    const ended = await scope.handler('nodejs', bundle, { pool })
    await scope.makeEngine().stop(ended.id, 0, within())
    await ended.start()
    assert.ok(ended.state.kind === 'failed')
    assert.equal(ended.state.fault.code, 'HANDLER_START')
    await ended.stop(within())
    assert.deepEqual(scope.folders.read().ids, [])
    assert.deepEqual(await scope.engine.list(within()), [])
  })

  for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
    it(`is started anew, and at once, when the engine cannot change the limits of the spare, engine ${kind}`, async () => {
      await using scope = await handlerScope(kind)
      using watch = watching(scope.engine)
      const pool = scope.pool()
      const need = { wants: [await scope.want('nodejs')], memoryMiBMax: 1_000, calm: true }
      await stocked(pool, need, 1)
      const bundle = await scope.bundle(echoing('nodejs', 'hello '))
      const handler = await scope.handler('nodejs', bundle, { pool, limits: { pids: 65 } })
      const refused = new Fault('HANDLER_START', 'this runtime cannot change limits')
      scope.engine.update = () => Promise.reject(refused)
      await handler.start()
      assert.equal(handler.state.kind, 'ready', JSON.stringify(handler.state))
      assert.ok(handler.timings.engineMs !== undefined)
      assert.equal(await scope.call(handler, 'you'), 'hello you')
      // News comes in order: with this end, the spare's would have been told as well.
      await scope.makeEngine().stop(handler.id, 0, within())
      await eventually(() => watch.exits.length > 0)
      assert.deepEqual(
        watch.exits.map(({ id }) => id),
        [handler.id],
      )
      await handler.stop(within())
      assert.deepEqual(scope.folders.read().ids, [])
    })
  }
})
