import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { HandlerFolders } from '#agent/handlers/index.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { eventually } from '#test/eventually.ts'
import { childScope, isReadyLine, type ChildScope } from '#test/process.ts'
import {
  FolderSource,
  answering,
  assignmentOf,
  call,
  makeEngine,
  nodeBed,
  reported,
  startNode,
  type NodeBed,
} from '#test/reconcile-scope.ts'

const KILLS = 8

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`an agent that is killed, engine ${kind}`, () => {
    it('leaves no spare behind, neither one that waits nor one on its way', async () => {
      await using bed = await nodeBed(kind)
      const source = new FolderSource(join(bed.folder, 'artifacts'))
      const hello = await assignmentOf(source, 'hello', answering('hello '))
      await want(bed, [hello])
      const spares = async (): Promise<number> => {
        const handlers = await makeEngine(bed).list(AbortSignal.timeout(60_000))
        return handlers.filter(({ fn }) => fn === undefined).length
      }
      {
        await using agent = await startAgent(bed, isReadyLine)
        await eventually(async () => (await spares()) === 2, { timeoutMs: 30_000 })
        await agent.kill('SIGKILL')
      }
      assert.equal(await spares(), 2)
      await using node = await startNode(bed, { surveyMs: 2_000 })
      node.reconciler.setDesired([hello])
      await reported(node, 'hello', 'ready')
      await eventually(async () => (await spares()) === 0)
      await node.reconciler.settled(AbortSignal.timeout(60_000))
      await eventually(async () => (await readdir(join(bed.folder, 'h'))).length === 1)
      assert.equal(await call(node.router, 'hello', 'again'), 'hello again')
    })

    it('leaves nothing to a next one that is to remove handlers, and is stopped before it has looked at anything', async () => {
      await using bed = await nodeBed(kind)
      const source = new FolderSource(join(bed.folder, 'artifacts'))
      await want(bed, [await assignmentOf(source, 'hello', answering('hello '))])
      {
        await using agent = await startAgent(bed, isReadyLine)
        await eventually(async () => (await idsOf(bed)).length > 1, { timeoutMs: 30_000 })
        await agent.kill('SIGKILL')
      }
      assert.ok((await settledIds(bed)).length > 1)
      const node = await startNode(bed)
      await node.close(true)
      assert.deepEqual(await idsOf(bed), [])
      assert.deepEqual(await readdir(join(bed.folder, 'h')), [])
    })

    it('leaves handlers that the next one takes over as they are', async () => {
      await using bed = await nodeBed(kind)
      const source = new FolderSource(join(bed.folder, 'artifacts'))
      const hello = await assignmentOf(source, 'hello', answering('hello '), { replicas: 2 })
      await want(bed, [hello])
      {
        await using agent = await startAgent(bed, isReadyLine)
        await agent.kill('SIGKILL')
      }
      const before = await recordsOf(bed)
      await using node = await startNode(bed, { surveyMs: 2_000 })
      node.reconciler.setDesired([hello])
      await reported(node, 'hello', 'ready')
      assert.equal(await call(node.router, 'hello', 'again'), 'hello again')
      await node.reconciler.settled(AbortSignal.timeout(60_000))
      assert.deepEqual(await recordsOf(bed), before)
      // A spare that the engine was still making for the killed agent is found by the second look.
      await eventually(async () => (await idsOf(bed)).length === before.length)
      assert.deepEqual(await idsOf(bed), before)
      assert.equal(before.length, 2)
    })

    it(`ends up right after ${KILLS} kills at any moment of deployments, with nothing left over`, async () => {
      await using bed = await nodeBed(kind)
      const source = new FolderSource(join(bed.folder, 'artifacts'))
      const waits: number[] = []
      let last: Assignment[] = []
      for (let round = 0; round < KILLS; round++) {
        last = [
          await assignmentOf(source, 'hello', answering(`round ${round} `), { replicas: 2 }),
          await assignmentOf(source, round % 2 === 0 ? 'even' : 'odd', answering('here')),
        ]
        await want(bed, last)
        await using agent = await startAgent(bed, () => true)
        const waitMs = randomInt(0, kind === 'docker' ? 1_600 : 900)
        waits.push(waitMs)
        await sleep(waitMs)
        await agent.kill('SIGKILL')
      }
      await using node = await startNode(bed, { surveyMs: 2_000 })
      node.reconciler.setDesired(last)
      const names = last.map(({ fn }) => fn).toSorted()
      for (const fn of names) await reported(node, fn, 'ready')
      assert.equal(await call(node.router, 'hello', 'x'), `round ${KILLS - 1} x`)
      // What the engine was still doing for a killed agent is found by the second look.
      await sleep(2_500)
      await node.reconciler.settled(AbortSignal.timeout(60_000))
      await eventually(async () => (await idsOf(bed)).length === 3)
      await node.reconciler.settled(AbortSignal.timeout(60_000))
      const left = await makeEngine(bed).list(AbortSignal.timeout(60_000))
      const context = `waits ${waits.join()}`
      // By the records: a handler that was a spare has no function on its label.
      const folders = await HandlerFolders.open(join(bed.folder, 'h'))
      const functions = Array.from(folders.read().records, ({ fn }) => fn).toSorted()
      assert.deepEqual(
        functions,
        ['hello', 'hello', ...names.filter((fn) => fn !== 'hello')].toSorted(),
        context,
      )
      assert.ok(
        left.every(({ state }) => state === 'running'),
        context,
      )
      const ids = left.map(({ id }) => id).toSorted()
      assert.deepEqual((await readdir(join(bed.folder, 'h'))).toSorted(), ids, context)
      const bundles = await readdir(join(bed.folder, 'bundles'))
      assert.equal(bundles.length, 2, context)
    })
  })
}

function startAgent(bed: NodeBed, ready: (line: string) => boolean): Promise<ChildScope> {
  const script = join(import.meta.dirname, '../lib/reconcile-agent.ts')
  return childScope({ script, args: [bed.kind, bed.folder, bed.installation], ready })
}

async function want(bed: NodeBed, assignments: readonly Assignment[]): Promise<void> {
  const path = join(bed.folder, 'desired.json')
  await writeFile(`${path}.new`, JSON.stringify(assignments))
  await rename(`${path}.new`, path)
}

/** Handlers with a function: spares have no record. */
async function recordsOf(bed: NodeBed): Promise<readonly string[]> {
  const folders = await HandlerFolders.open(join(bed.folder, 'h'))
  return folders
    .read()
    .records.map(({ id }) => id)
    .toSorted()
}

/** Once the engine has done what it was still doing for a killed agent. */
function settledIds(bed: NodeBed): Promise<readonly string[]> {
  return eventually(
    async () => {
      const before = await idsOf(bed)
      await sleep(1_000)
      const after = await idsOf(bed)
      return before.join() === after.join() && after
    },
    { timeoutMs: 30_000 },
  )
}

async function idsOf(bed: NodeBed): Promise<readonly string[]> {
  await using engine = makeEngine(bed)
  return (await engine.list(AbortSignal.timeout(60_000))).map(({ id }) => id).toSorted()
}
