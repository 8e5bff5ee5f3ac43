import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventually } from '#test/eventually.ts'
import {
  answering,
  assignmentOf,
  call,
  nodeBed,
  reported,
  startNode,
} from '#test/reconcile-scope.ts'

/** Loads well, and ends by itself a moment later. */
const DIES = {
  'index.mjs': `setTimeout(() => process.exit(3), 1_500)
export default async () => new Response('alive')`,
}

/** Between two looks at the clocks. */
const CLOCKS_MS = 50

test('a function whose handlers die one after the other: pauses that grow and differ, told in its health', async () => {
  await using bed = await nodeBed('docker')
  const drawnAtMs: number[] = []
  const random = (): number => {
    drawnAtMs.push(Date.now())
    return Math.random()
  }
  await using node = await startNode(bed, { random })
  node.reconciler.setDesired([
    await assignmentOf(node.source, 'dies', DIES),
    await assignmentOf(node.source, 'lives', answering('well')),
  ])
  await reported(node, 'lives', 'ready')
  const report = () => node.reconciler.report().find(({ fn }) => fn === 'dies')
  const pausesMs = new Map<number, number>()
  const told = await eventually(
    () => {
      const now = report()
      const { failures = 0, retryAtMs = 0 } = now ?? {}
      const pauseMs = retryAtMs - (drawnAtMs[failures - 1] ?? Number.NaN)
      // A halt between two looks at the clocks makes it seem shorter, never longer.
      if (failures > 0) pausesMs.set(failures, Math.max(pauseMs, pausesMs.get(failures) ?? 0))
      return failures >= 5 && now?.state === 'failed' ? now : undefined
    },
    { timeoutMs: 60_000, everyMs: 5 },
  )
  assert.equal(drawnAtMs.length, told.failures, 'each pause is drawn')
  const all = JSON.stringify([...pausesMs])
  for (const [failures, pauseMs] of pausesMs) {
    // After the first failure there is none; then up to 250 ms, doubled each time, at least half of that.
    const fullMs = failures === 1 ? 0 : 250 * 2 ** (failures - 2)
    assert.ok(pauseMs > fullMs / 2 - CLOCKS_MS && pauseMs < fullMs + CLOCKS_MS, all)
  }
  const { reason, handlers } = told
  assert.match(reason?.message ?? '', /3/)
  assert.ok(handlers.restarts >= 4)
  assert.equal(await call(node.router, 'lives', '!'), 'well!')
})
