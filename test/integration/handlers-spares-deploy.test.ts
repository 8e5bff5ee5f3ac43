import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { EngineKind } from '#shared/schemas/names.ts'
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

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`a node with spares, engine ${kind}`, () => {
    it('starts the first handler of a kind, takes a spare for the next ones, and ends the rest when it closes', async () => {
      await using bed = await nodeBed(kind)
      await using engine = makeEngine(bed)
      const told: string[] = []
      const complaints: string[] = []
      const log = {
        debug: (_: object, message: string) => told.push(message),
        info: () => {},
        warn: (_: object, message: string) => complaints.push(message),
        error: (_: object, message: string) => complaints.push(message),
      }
      await using node = await startNode(bed, { spares: 1, log })
      const spares = (): number => told.filter((message) => message === 'spare waits').length
      const wanted = []
      for (const fn of ['one', 'two', 'three']) {
        wanted.push(await assignmentOf(node.source, fn, answering(`${fn} `)))
        node.reconciler.setDesired(wanted)
        await reported(node, fn, 'ready')
        assert.equal(await call(node.router, fn, 'x'), `${fn} x`)
        await eventually(() => spares() === wanted.length, { timeoutMs: 30_000 })
      }
      const [one, ...others] = node.timings
      assert.ok(one?.engineMs !== undefined)
      assert.equal(others.length, 2)
      for (const { engineMs, readyMs } of others) {
        assert.equal(engineMs, undefined, 'nothing was started for it')
        assert.ok(readyMs !== undefined)
      }
      // With other memory: another kind, which no spare fits.
      const settings = { memoryMiB: 96 }
      wanted.push(await assignmentOf(node.source, 'small', answering('small '), settings))
      node.reconciler.setDesired(wanted)
      await reported(node, 'small', 'ready')
      assert.ok(node.timings.at(-1)?.engineMs !== undefined)

      await node.reconciler.close({ removeHandlers: false })
      const left = await engine.list(AbortSignal.timeout(60_000))
      assert.equal(left.length, 4)
      assert.equal((await readdir(join(bed.folder, 'h'))).length, 4)
      for (const { id } of left) await engine.stop(id, 0, AbortSignal.timeout(30_000))
      assert.deepEqual(complaints, [])
    })
  })
}
