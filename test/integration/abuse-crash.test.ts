import assert from 'node:assert/strict'
import { test } from 'node:test'
import { grpcClient } from '#test/grpc-proxy-scope.ts'
import { RawCoap, uriPath } from '#test/raw-coap.ts'
import { ServedNode } from '#test/served-node.ts'

const UNAVAILABLE = 14
/** After the tenth of a second; far from the call's own 20 s. */
const AT_ONCE_MS = 8_000

/** Ends its handler when told so, once a tenth of a second has passed; says which handler it is otherwise. */
const MORTAL = `
module.exports = async (req, res) => {
  if (String(req.rawBody) === 'die') setTimeout(() => process.kill(process.pid, 'SIGKILL'), 100)
  else if (String(req.rawBody) === 'die in the middle') {
    res.set('content-type', 'text/plain').write('begun')
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), 100)
  } else res.send(String(process.pid))
}
`
/** Tells which handler it is, and ends it when it is the one that is named. */
const NAMED = `
const { hostname } = require('node:os')
module.exports = (req, res) => {
  const name = String(req.rawBody)
  if (name === hostname()) process.kill(process.pid, 'SIGKILL')
  else res.send(name === '' ? hostname() : 'second try')
}
`

/** One call by each protocol. @returns how it ended: body, or the code of the failure */
async function byEach(node: ServedNode, fn: string, bodyOf: () => Promise<string>) {
  const http = async (body: string): Promise<string | number> => {
    const answer = await fetch(node.url(`/${fn}`), { method: 'POST', body })
    const text = await answer.text()
    return answer.ok ? text : answer.status
  }
  const coap = async (body: string): Promise<string> => {
    await using client = await RawCoap.open(node.coap.port)
    const payload = Buffer.from(body)
    const answer = await client.ask({ code: 'POST', payload, options: uriPath(fn) })
    return answer.code === '2.05' ? answer.payload.toString() : answer.code
  }
  const grpc = async (body: string): Promise<string | number> => {
    using client = grpcClient(`127.0.0.1:${node.grpc.port}`, 'shoal.proto', 'shoal.v1.Functions')
    const request = { function: fn, payload: Buffer.from(body) }
    try {
      return (await client.unary('Invoke', request)).payload.toString()
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error
      return Number(error.code)
    }
  }
  const timed = async <T>(call: (body: string) => Promise<T>) => {
    const body = await bodyOf()
    const startedAtMs = performance.now()
    const outcome = await call(body)
    return { outcome, tookMs: performance.now() - startedAtMs }
  }
  return { http: await timed(http), coap: await timed(coap), grpc: await timed(grpc) }
}

test('a handler that dies in mid-call: 502, 5.02 and UNAVAILABLE at once, and the others go on', async () => {
  await using node = await ServedNode.start()
  // One handler for each of the three calls, and one that is left.
  const { lane } = await node.deploy('mortal', MORTAL, { timeoutMs: 20_000 }, 4)
  const { http, coap, grpc } = await byEach(node, 'mortal', async () => 'die')
  assert.deepEqual([http.outcome, coap.outcome, grpc.outcome], [502, '5.02', UNAVAILABLE])
  for (const { tookMs } of [http, coap, grpc]) assert.ok(tookMs < AT_ONCE_MS, `${tookMs} ms`)
  assert.match(await (await fetch(node.url('/mortal'))).text(), /^\d+$/)
  const { failed, ok, retried } = lane.stats().calls
  assert.deepEqual([failed, ok, retried], [3, 1, 0])
})

test('an idempotent call is answered by another handler, by every protocol, and counted', async () => {
  await using node = await ServedNode.start()
  const { lane } = await node.deploy('twice', NAMED, { idempotent: true }, 4)
  // Of idle handlers, the one that answers is also the one that the next call comes to.
  const next = async (): Promise<string> => (await fetch(node.url('/twice'))).text()
  const { http, coap, grpc } = await byEach(node, 'twice', next)
  assert.deepEqual(
    [http.outcome, coap.outcome, grpc.outcome],
    ['second try', 'second try', 'second try'],
  )
  const { ok, failed, retried } = lane.stats().calls
  assert.deepEqual([ok, failed, retried], [6, 0, 3])
})

test('an idempotent call that kills every handler ends with the second, not with the last', async () => {
  await using node = await ServedNode.start()
  const { lane } = await node.deploy('mortal', MORTAL, { idempotent: true }, 3)
  const answer = await fetch(node.url('/mortal'), { method: 'POST', body: 'die' })
  assert.equal(answer.status, 502)
  assert.equal(lane.links.length, 1)
  assert.match(await (await fetch(node.url('/mortal'))).text(), /^\d+$/)
})

test('an answer that has begun breaks off, idempotent or not', async () => {
  await using node = await ServedNode.start()
  const { lane } = await node.deploy('mortal', MORTAL, { idempotent: true }, 2)
  const answer = await fetch(node.url('/mortal'), { method: 'POST', body: 'die in the middle' })
  assert.equal(answer.status, 200)
  await assert.rejects(answer.text())
  assert.equal(lane.stats().calls.retried, 0)
})
