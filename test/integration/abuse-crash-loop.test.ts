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
  'index.mjs': `setTimeout(() => process.exit(3), 100)
export default async () => new Response('alive')`,
}

test('a function whose handlers die one after the other: pauses that grow and differ, told in its health', async () => {
  await using bed = await nodeBed('docker')
  let drawn = 0
  const random = (): number => {
    drawn += 1
    return Math.random()
  }
  await using node = await startNode(bed, { random })
  node.reconciler.setDesired([
    await assignmentOf(node.source, 'dies', DIES),
    await assignmentOf(node.source, 'lives', answering('well')),
  ])
  await reported(node, 'lives', 'ready')
  const report = () => node.reconciler.report().find(({ fn }) => fn === 'dies')
  const pauses = new Map<number, number>()
  await eventually(
    () => {
      const { failures = 0, retryAtMs = 0 } = report() ?? {}
      const pauseMs = retryAtMs - Date.now()
      if (pauseMs > 0 && !pauses.has(failures)) pauses.set(failures, pauseMs)
      return pauses.has(5)
    },
    { timeoutMs: 60_000, everyMs: 5 },
  )
  // After the first failure there is none; then up to 250 ms, doubled each time, at least half of that.
  assert.ok((pauses.get(5) ?? 0) > 800, JSON.stringify([...pauses]))
  assert.ok((pauses.get(5) ?? 0) <= 2_000, JSON.stringify([...pauses]))
  assert.ok((pauses.get(3) ?? 0) < (pauses.get(5) ?? 0), JSON.stringify([...pauses]))
  assert.ok(drawn >= 4, 'each pause is drawn')
  const { state, reason, handlers } = report() ?? {}
  assert.equal(state, 'failed')
  assert.match(reason?.message ?? '', /3/)
  assert.ok((handlers?.restarts ?? 0) >= 4)
  assert.equal(await call(node.router, 'lives', '!'), 'well!')
})
