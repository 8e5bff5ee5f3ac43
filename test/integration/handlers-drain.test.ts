import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { describe, it } from 'node:test'
import type { Fault } from '#shared/fault.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { collectBytes } from '#test/bytes.ts'
import { eventually } from '#test/eventually.ts'
import { invocation } from '#test/invoke-scope.ts'
import {
  answering,
  assignmentOf,
  call,
  nodeBed,
  reported,
  startNode,
  type ReconcileNode,
} from '#test/reconcile-scope.ts'

const settle = (node: ReconcileNode): Promise<void> =>
  node.reconciler.settled(AbortSignal.timeout(60_000))

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`calls that take long, on engine ${kind}`, () => longCallTests(kind))
}

function longCallTests(kind: EngineKind): void {
  it('lets calls in flight end before their handlers do, however short the agent’s own patience is', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { drainMs: 100 })
    const deploy = async (text: string): Promise<void> => {
      const settings = { timeoutMs: 120_000 }
      node.reconciler.setDesired([
        await assignmentOf(node.source, 'slow', answering(text), settings),
      ])
      await reported(node, 'slow', 'ready')
    }
    const draining = (count: number | undefined) =>
      eventually(() => node.reconciler.report()[0]?.handlers.draining === count)
    await deploy('one')
    const one = longCall(node, 'slow')
    await deploy('two')
    await draining(1)
    // What drains holds up nothing: the next release comes, and handlers that are done go.
    const two = longCall(node, 'slow')
    await deploy('three')
    await draining(2)
    assert.equal(await call(node.router, 'slow'), 'three')
    assert.deepEqual([await one(), await two()], ['one', 'two'])
    await draining(undefined)
    await settle(node)
    const three = longCall(node, 'slow')
    node.reconciler.setDesired([])
    const removedMs = performance.now()
    await eventually(() => performance.now() - removedMs > 500)
    assert.equal(await three(), 'three')
    await settle(node)
    assert.deepEqual(await node.engine.list(AbortSignal.timeout(60_000)), [])
  })

  it('does not wait for long calls when the agent stops', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { drainMs: 100 })
    const files = { 'index.mjs': `export default () => new Promise(() => {})` }
    const first = await assignmentOf(node.source, 'stuck', files)
    node.reconciler.setDesired([first])
    await reported(node, 'stuck', 'ready')
    const draining = call(node.router, 'stuck').catch((error: Fault) => error.code)
    node.reconciler.setDesired([{ ...first, release: 'r0-00000000' }])
    await eventually(() => node.reconciler.report()[0]?.handlers.draining === 1)
    const serving = call(node.router, 'stuck').catch((error: Fault) => error.code)
    const startedMs = performance.now()
    await node.close(true)
    assert.ok(performance.now() - startedMs < 10_000)
    assert.deepEqual(await Promise.all([draining, serving]), ['FUNCTION_EXITED', 'FUNCTION_EXITED'])
  })

  it('keeps a handler that its callers are too impatient for', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const files = {
      'index.mjs': `export default (request) => {
        const end = Date.now() + (request.method === 'POST' ? 2_500 : 0)
        while (Date.now() < end);
        return new Response('alive')
      }`,
    }
    const busy = await assignmentOf(node.source, 'busy', files, { timeoutMs: 10_000 })
    node.reconciler.setDesired([busy])
    await reported(node, 'busy', 'ready')
    const impatient = invocation({ fn: 'busy', method: 'POST', deadlineMs: 1 })
    await assert.rejects(node.router.invoke(impatient), { code: 'DEADLINE_EXCEEDED' })
    const patient = await node.router.invoke(invocation({ fn: 'busy', method: 'GET' }))
    assert.equal(patient.status, 200)
    assert.equal(node.reconciler.report()[0]?.handlers.restarts, 0)
    assert.deepEqual(node.complaints, [])
  })
}

/** A call whose request goes on until what this returns is called; that resolves to the answer. */
function longCall(node: ReconcileNode, fn: string): () => Promise<string> {
  const body = new PassThrough()
  const answer = node.router.invoke(invocation({ fn, body }))
  // A call that is lost fails the test where it is waited for.
  answer.catch(() => {})
  return async () => {
    body.end()
    const result = await answer
    const bytes = Buffer.isBuffer(result.body) ? result.body : await collectBytes(result.body)
    return bytes.toString()
  }
}
