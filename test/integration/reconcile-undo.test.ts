import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ObservedHandler } from '#agent/handlers/index.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { callers } from '#test/callers.ts'
import { eventually } from '#test/eventually.ts'
import {
  answering,
  assignmentOf,
  call,
  nodeBed,
  reported,
  startNode,
  type ReconcileNode,
} from '#test/reconcile-scope.ts'

const KEEP_MS = 60_000

/** A busy machine takes its time to start and remove containers. */
const PATIENT = { timeoutMs: 40_000 } as const

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`the release before, on engine ${kind}`, () => {
    keepTests(kind)
    fallbackTests(kind)
  })
}

function keepTests(kind: EngineKind): void {
  it('is kept paused, and taken back as it is, without losing a call', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { keepMs: KEEP_MS })
    const one = await assignmentOf(node.source, 'hello', answering('one'), { replicas: 2 })
    const two = await assignmentOf(node.source, 'hello', answering('two'))
    node.reconciler.setDesired([one])
    await reported(node, 'hello', 'ready')
    const first = await listed(node)
    const load = callers(node, 'hello')
    node.reconciler.setDesired([two])
    await reported(node, 'hello', 'ready')
    const kept = await eventually(() => keptAlone(node), PATIENT)
    assert.ok(first.some(({ id }) => id === kept.id))
    assert.equal(kept.release, one.release)
    await eventually(() => node.reconciler.report()[0]?.handlers.paused === 1, PATIENT)

    node.reconciler.setDesired([{ ...one, settings: { ...one.settings, replicas: 1 } }])
    await reported(node, 'hello', 'ready')
    const other = await eventually(() => keptAlone(node), PATIENT)
    assert.equal(other.release, two.release, 'now the other one is kept')
    const running = (await listed(node)).find(({ state }) => state === 'running')
    assert.equal(running?.id, kept.id, 'resumed, not started')
    const { answers, failures } = await load.end()
    assert.deepEqual(failures, [])
    assert.deepEqual([...answers.keys()].toSorted(), ['one', 'two'])
    await eventually(async () => (await call(node.router, 'hello')) === 'one')
    const [report] = node.reconciler.report()
    assert.deepEqual([report?.handlers.restarts, report?.failures], [0, undefined])
    assert.equal(node.timings.length, 3)
  })

  it('is removed after its time, and with its function', async () => {
    await using bed = await nodeBed(kind)
    // Long enough for a poll to see what is kept.
    await using node = await startNode(bed, { keepMs: 4_000 })
    for (const text of ['one', 'two']) {
      node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering(text))])
      await reported(node, 'hello', 'ready')
    }
    await eventually(() => keptAlone(node), PATIENT)
    await eventually(async () => (await listed(node)).length === 1, PATIENT)
    node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering('three'))])
    await reported(node, 'hello', 'ready')
    await eventually(() => keptAlone(node), PATIENT)
    node.reconciler.setDesired([])
    await eventually(async () => (await listed(node)).length === 0, PATIENT)
    assert.deepEqual(node.complaints, [])
  })

  it('that dies while it is kept is no failure of anything', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { keepMs: KEEP_MS })
    const one = await assignmentOf(node.source, 'hello', answering('one'))
    node.reconciler.setDesired([one])
    await reported(node, 'hello', 'ready')
    node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering('two'))])
    const kept = await eventually(() => keptAlone(node), PATIENT)
    await node.engine.stop(kept.id, 0, AbortSignal.timeout(60_000))
    await eventually(() => node.reconciler.report()[0]?.handlers.paused === 0, PATIENT)
    const [report] = node.reconciler.report()
    assert.deepEqual(
      [report?.state, report?.handlers.restarts, report?.failures],
      ['ready', 0, undefined],
    )
    node.reconciler.setDesired([one])
    await reported(node, 'hello', 'ready')
    // Started again, as there is none to resume.
    await eventually(async () => (await call(node.router, 'hello')) === 'one')
  })

  it('gives way to handlers that calls need when memory is short', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { keepMs: KEEP_MS, memoryBudgetMiB: 200 })
    const settings = { memoryMiB: 100, concurrency: 1 }
    node.reconciler.setDesired([
      await assignmentOf(node.source, 'hello', answering('one'), settings),
    ])
    await reported(node, 'hello', 'ready')
    const slow = {
      'index.mjs': `export default async () => {
        await new Promise((resolve) => setTimeout(resolve, 500))
        return new Response('two')
      }`,
    }
    const next = await assignmentOf(node.source, 'hello', slow, { ...settings, replicasMax: 2 })
    node.reconciler.setDesired([next])
    await eventually(() => keptAlone(node), PATIENT)
    const answers = await Promise.all(Array.from({ length: 4 }, () => call(node.router, 'hello')))
    assert.deepEqual(new Set(answers), new Set(['two']))
    await eventually(async () => {
      const all = await listed(node)
      return all.length === 2 && all.every(({ release }) => release === next.release)
    }, PATIENT)
  })
}

function fallbackTests(kind: EngineKind): void {
  it('serves again after a crash while the wanted one cannot be loaded', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { keepMs: KEEP_MS, random: () => 1 })
    const good = await assignmentOf(node.source, 'hello', answering('good'))
    node.reconciler.setDesired([good])
    await reported(node, 'hello', 'ready')
    const bad = await assignmentOf(node.source, 'hello', {
      'index.mjs': `throw new Error('no such sensor')`,
    })
    node.reconciler.setDesired([bad])
    await reported(node, 'hello', 'failed')
    const handler = await eventually(async () =>
      (await listed(node)).find(({ release }) => release === good.release),
    )
    await node.engine.stop(handler.id, 0, AbortSignal.timeout(60_000))
    await eventually(() => node.reconciler.report()[0]?.handlers.restarts === 1, PATIENT)
    assert.equal(await call(node.router, 'hello'), 'good')
    const report = await eventually(() => {
      const [now] = node.reconciler.report()
      return now?.state === 'failed' && now.serving.length > 0 ? now : undefined
    })
    assert.deepEqual(report.serving, [good.release])
    assert.equal(report.release, bad.release)
    assert.match(report.reason?.message ?? '', /no such sensor/)
    assert.ok((report.failures ?? 0) > 0 && (report.retryAtMs ?? 0) > 0)

    node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering('better'))])
    await reported(node, 'hello', 'ready')
    await eventually(async () => (await call(node.router, 'hello')) === 'better')
  })
}

function listed({ engine }: ReconcileNode): Promise<readonly ObservedHandler[]> {
  return engine.list(AbortSignal.timeout(60_000))
}

/** The paused handler, when there is one and but one beside it. */
async function keptAlone(node: ReconcileNode): Promise<ObservedHandler | undefined> {
  const all = await listed(node)
  return all.length === 2 ? all.find(({ state }) => state === 'paused') : undefined
}
