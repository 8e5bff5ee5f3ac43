import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { EngineKind } from '#shared/schemas/names.ts'
import type { FunctionReport } from '#shared/schemas/health.ts'
import { eventually } from '#test/eventually.ts'
import { invocation } from '#test/invoke-scope.ts'
import {
  answering,
  assignmentOf,
  call,
  nodeBed,
  reported,
  startNode,
  type Files,
  type ReconcileNode,
} from '#test/reconcile-scope.ts'

const settle = (node: ReconcileNode): Promise<void> =>
  node.reconciler.settled(AbortSignal.timeout(60_000))

/** Answers after as many milliseconds as the body says. */
const SLOW: Files = {
  'index.mjs': `export default async (request) => {
    const ms = Number(await request.text())
    await new Promise((resolve) => setTimeout(resolve, ms))
    return new Response(process.env.HOSTNAME ?? '')
  }`,
}

/** A busy machine takes its time to start and remove containers. */
const PATIENT = { timeoutMs: 40_000 } as const

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`scaling on engine ${kind}`, () => {
    sleepTests(kind)
    demandTests(kind)
    isolationTests(kind)
  })
}

function sleepTests(kind: EngineKind): void {
  it('puts an idle function to sleep, wakes it for a call, and removes it when it has slept for long', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const settings = { replicas: 0, idleMs: 300, removeMs: 5_000 }
    const hello = await assignmentOf(node.source, 'hello', answering('hi '), settings)
    node.reconciler.setDesired([hello])
    // It shows that it runs before it may sleep.
    assert.equal((await reported(node, 'hello', 'ready')).handlers.ready, 1)
    const asleep = await eventually(() => resting(node), PATIENT)
    assert.deepEqual([asleep.state, asleep.handlers.ready, asleep.serving], ['ready', 0, []])
    const [before] = await node.engine.list(AbortSignal.timeout(60_000))
    assert.equal(before?.state, 'paused')

    assert.equal(await call(node.router, 'hello', 'you'), 'hi you')
    const [after] = await node.engine.list(AbortSignal.timeout(60_000))
    assert.equal(after?.id, before.id, 'resumed, not started again')
    await eventually(() => resting(node), PATIENT)
    await eventually(
      async () => (await node.engine.list(AbortSignal.timeout(60_000))).length === 0,
      PATIENT,
    )
    await settle(node)
    assert.equal(node.reconciler.report()[0]?.state, 'ready')
    assert.equal(await call(node.router, 'hello', 'again'), 'hi again', 'started anew')
    assert.equal(node.reconciler.report()[0]?.handlers.restarts, 0)
    assert.deepEqual(node.complaints, [])
  })

  it('forgets a paused handler that died: the next call starts another', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const settings = { replicas: 0, idleMs: 200 }
    node.reconciler.setDesired([
      await assignmentOf(node.source, 'hello', answering('hi'), settings),
    ])
    await eventually(() => resting(node), PATIENT)
    const [handler] = await node.engine.list(AbortSignal.timeout(60_000))
    await node.engine.stop(handler?.id ?? '', 0, AbortSignal.timeout(60_000))
    await eventually(() => node.reconciler.report()[0]?.handlers.paused === 0, PATIENT)
    assert.equal(await call(node.router, 'hello'), 'hi')
    const [report] = node.reconciler.report()
    assert.deepEqual([report?.handlers.restarts, report?.failures], [0, undefined])
  })

  it('an agent that comes back wakes no sleeper, and a call finds it', async () => {
    await using bed = await nodeBed(kind)
    const settings = { replicas: 0, idleMs: 200 }
    let sleeper
    {
      await using first = await startNode(bed)
      sleeper = await assignmentOf(first.source, 'hello', answering('hi'), settings)
      first.reconciler.setDesired([sleeper])
      await eventually(() => resting(first), PATIENT)
      await first.close(true)
    }
    await using second = await startNode(bed)
    second.reconciler.setDesired([sleeper], true)
    await settle(second)
    assert.deepEqual(await second.engine.list(AbortSignal.timeout(60_000)), [])
    assert.equal(second.reconciler.report()[0]?.state, 'ready')
    assert.equal(await call(second.router, 'hello'), 'hi')
  })

  it('a sleeper that an agent left is taken over by the next', async () => {
    await using bed = await nodeBed(kind)
    const settings = { replicas: 0, idleMs: 200 }
    let sleeper
    let id
    {
      await using first = await startNode(bed)
      sleeper = await assignmentOf(first.source, 'hello', answering('hi'), settings)
      first.reconciler.setDesired([sleeper])
      await eventually(() => resting(first), PATIENT)
      id = (await first.engine.list(AbortSignal.timeout(60_000)))[0]?.id
      await first.close(false)
    }
    await using second = await startNode(bed)
    second.reconciler.setDesired([sleeper], true)
    assert.equal(await call(second.router, 'hello'), 'hi')
    const now = await second.engine.list(AbortSignal.timeout(60_000))
    assert.deepEqual(
      now.map((one) => one.id),
      [id],
    )
    assert.equal(second.timings.length, 0)
  })
}

function demandTests(kind: EngineKind): void {
  it('starts handlers while calls wait, up to the maximum, and loses none', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const settings = { replicas: 1, replicasMax: 3, concurrency: 2 }
    node.reconciler.setDesired([await assignmentOf(node.source, 'slow', SLOW, settings)])
    await reported(node, 'slow', 'ready')
    const calls = Array.from({ length: 20 }, () => call(node.router, 'slow', '700'))
    await eventually(() => node.reconciler.report()[0]?.handlers.ready === 3, PATIENT)
    await Promise.all(calls)
    assert.equal(node.reconciler.report()[0]?.calls.ok, 20)
    assert.equal(node.timings.length, 3)
  })

  it('does not start handlers beyond the minimum above the memory budget, and says so', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { memoryBudgetMiB: 200 })
    const settings = { replicas: 1, replicasMax: 3, concurrency: 1, memoryMiB: 100 }
    node.reconciler.setDesired([await assignmentOf(node.source, 'slow', SLOW, settings)])
    await reported(node, 'slow', 'ready')
    const calls = Array.from({ length: 6 }, () => call(node.router, 'slow', '1500'))
    const limited = await eventually(() => {
      const [report] = node.reconciler.report()
      return report?.handlers.ready === 2 && report.limited !== undefined ? report : undefined
    })
    assert.equal(limited.limited?.code, 'MEMORY_BUDGET')
    assert.equal(limited.state, 'ready')
    await Promise.all(calls)
    assert.equal(node.timings.length, 2)
  })
}

function isolationTests(kind: EngineKind): void {
  it('single: one call at a time in a handler', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const counting = {
      'index.mjs': `let now = 0; let most = 0
      export default async (request) => {
        most = Math.max(most, ++now)
        await new Promise((resolve) => setTimeout(resolve, 20))
        now--
        return new Response(String(most))
      }`,
    }
    const settings = { isolation: 'single', replicas: 2, concurrency: 8 } as const
    node.reconciler.setDesired([await assignmentOf(node.source, 'one', counting, settings)])
    await reported(node, 'one', 'ready')
    const answers = await Promise.all(Array.from({ length: 30 }, () => call(node.router, 'one')))
    assert.deepEqual([...new Set(answers)], ['1'])
  })

  it('fresh: no handler sees a second call, and others are ready ahead', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const counting = {
      'index.mjs': `let calls = 0; export default () => new Response(String(++calls))`,
    }
    const settings = { isolation: 'fresh', replicas: 2, timeoutMs: 120_000 } as const
    node.reconciler.setDesired([await assignmentOf(node.source, 'new', counting, settings)])
    await reported(node, 'new', 'ready')
    await eventually(() => (node.reconciler.report()[0]?.handlers.ready ?? 0) >= 2, PATIENT)
    const answers = await Promise.all(Array.from({ length: 10 }, () => call(node.router, 'new')))
    assert.deepEqual([...new Set(answers)], ['1'])
    await eventually(() => (node.reconciler.report()[0]?.handlers.ready ?? 0) >= 2, PATIENT)
    assert.equal(node.reconciler.report()[0]?.handlers.restarts, 0)
    assert.deepEqual(node.complaints, [])
  })

  it('fresh: a call that kills or blocks its handler is its own trouble only', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const files = {
      'index.mjs': `export default async (request) => {
        const what = await request.text()
        if (what === 'die') process.abort()
        if (what === 'block') for (;;);
        return new Response('alive')
      }`,
    }
    const settings = { isolation: 'fresh', replicas: 2 } as const
    node.reconciler.setDesired([await assignmentOf(node.source, 'risky', files, settings)])
    await reported(node, 'risky', 'ready')
    const body = Buffer.from('block')
    const block = node.router.invoke(invocation({ fn: 'risky', body, deadlineMs: 1_500 }))
    const calls = ['die', '', '', '', ''].map((what) => call(node.router, 'risky', what))
    const [blocked, died, ...others] = await Promise.allSettled([block, ...calls])
    assert.equal(codeOf(died), 'FUNCTION_EXITED')
    assert.equal(codeOf(blocked), 'DEADLINE_EXCEEDED')
    assert.deepEqual(
      others.map((one) => (one.status === 'fulfilled' ? one.value : codeOf(one))),
      ['alive', 'alive', 'alive', 'alive'],
    )
    // What the burst has started stays for a while; what had its call goes.
    const report = await eventually(async () => {
      const [now] = node.reconciler.report()
      const left = await node.engine.list(AbortSignal.timeout(60_000))
      return now !== undefined && left.length === now.handlers.ready ? now : undefined
    }, PATIENT)
    assert.ok(report.handlers.ready >= 2)
    assert.deepEqual(
      [report.state, report.handlers.restarts, report.failures],
      ['ready', 0, undefined],
    )
  })
}

/** The report of the node's only function once it sleeps. */
function resting(node: ReconcileNode): FunctionReport | undefined {
  const [report] = node.reconciler.report()
  return report?.handlers.paused === 1 ? report : undefined
}

function codeOf(result: PromiseSettledResult<unknown> | undefined): unknown {
  if (result?.status !== 'rejected') return 'answered'
  const reason: { readonly code?: unknown } = result.reason
  return reason.code
}
