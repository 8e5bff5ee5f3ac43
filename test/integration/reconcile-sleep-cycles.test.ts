import assert from 'node:assert/strict'
import { it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '#test/eventually.ts'
import { percentile } from '#test/percentile.ts'
import { assignmentOf, call, nodeBed, reported, startNode } from '#test/reconcile-scope.ts'

const CYCLES = 200
const CALLS = 100
const IDLE_MS = 50
/** A first call comes at any moment of going to sleep: while it drains, while it is paused, after. */
const LATE_MS_MAX = 60

it(
  `docker: ${CYCLES * CALLS} calls across ${CYCLES} times of sleep, none lost`,
  { timeout: 900_000 },
  async (t) => {
    await using bed = await nodeBed('docker')
    // A handler that wakes up late, as on a busy machine, is none to be replaced here.
    await using node = await startNode(bed, { timeouts: { resumeMs: 20_000 } })
    const counting = {
      'index.mjs': `let calls = 0
      export default async (request) => new Response(await request.text() + ' ' + ++calls)`,
    }
    const settings = { replicas: 0, idleMs: IDLE_MS }
    node.reconciler.setDesired([await assignmentOf(node.source, 'sleeper', counting, settings)])
    await reported(node, 'sleeper', 'ready')

    const wakesMs: { readonly paused: number[]; readonly pausing: number[] } = {
      paused: [],
      pausing: [],
    }
    const seen = new Set<string>()
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      await eventually(() => node.reconciler.report()[0]?.handlers.ready === 0, { everyMs: 1 })
      // A machine that is held up may not finish one pause within any of these moments: each second call comes after it.
      if (cycle % 2 === 0) await sleep(Math.random() * LATE_MS_MAX)
      else
        await eventually(() => node.reconciler.report()[0]?.handlers.paused === 1, { everyMs: 1 })
      const asleep = node.reconciler.report()[0]?.handlers.paused === 1
      const startMs = performance.now()
      const calls = Array.from({ length: CALLS }, (_, n) =>
        call(node.router, 'sleeper', `${cycle}/${n}`),
      )
      seen.add((await Promise.race(calls)).split(' ')[0] ?? '')
      wakesMs[asleep ? 'paused' : 'pausing'].push(performance.now() - startMs)
      for (const [n, answer] of (await Promise.all(calls)).entries()) {
        const [echo = ''] = answer.split(' ')
        assert.equal(echo, `${cycle}/${n}`)
        seen.add(echo)
      }
    }

    assert.equal(seen.size, CYCLES * CALLS)
    const [report] = node.reconciler.report()
    assert.deepEqual(
      [report?.calls.ok, report?.calls.refused, report?.calls.failed, report?.handlers.restarts],
      [CYCLES * CALLS, 0, 0, 0],
    )
    assert.deepEqual(node.complaints, [])
    // Woken, not started. Another one means that the runtime's image was made anew meanwhile.
    assert.equal(node.timings.length, 1)
    for (const [found, all] of Object.entries(wakesMs)) {
      assert.ok(all.length > 0, `no call has found the handler ${found}`)
      const [p50, p99] = [percentile(all, 0.5), percentile(all, 0.99)].map((ms) => ms.toFixed(1))
      t.diagnostic(`${all.length} x ${found} to first answer: p50 ${p50} ms, p99 ${p99} ms`)
    }
  },
)

it('docker: calls that find nothing but a removed handler wait for a new one, none lost', async () => {
  await using bed = await nodeBed('docker')
  await using node = await startNode(bed, { spares: 1 })
  const files = {
    'index.mjs': `export default async (request) => new Response(await request.text())`,
  }
  const settings = { replicas: 0, idleMs: IDLE_MS, removeMs: 0 }
  node.reconciler.setDesired([await assignmentOf(node.source, 'sleeper', files, settings)])
  await reported(node, 'sleeper', 'ready')
  for (let cycle = 0; cycle < 10; cycle++) {
    await eventually(() => node.reconciler.report()[0]?.handlers.ready === 0, { everyMs: 1 })
    await sleep(Math.random() * 200)
    const calls = Array.from({ length: 50 }, (_, n) => call(node.router, 'sleeper', `${n}`))
    assert.deepEqual(
      await Promise.all(calls),
      Array.from({ length: 50 }, (_, n) => `${n}`),
    )
  }
  assert.deepEqual(node.complaints, [])
})
