import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { it } from 'node:test'
import { Value } from 'typebox/value'
import { ApiError } from '#shared/schemas/api.ts'
import { subjects } from '#shared/subjects.ts'
import { controllerScope } from '#test/controller-scope.ts'
import { collect, deploy, joinNode, roll, signal } from '#test/deploy.ts'
import { eventually } from '#test/eventually.ts'

/** Status and code of an error. */
async function codeOf(response: Response): Promise<[number, string]> {
  return [response.status, Value.Parse(ApiError, await response.json()).code]
}

it('a function is uploaded, rolled out by signed command, called, logged and deleted', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1', labels: { site: 'north' } })
  const { api } = controller
  const { release, cached } = await deploy(controller, 'site/thermo', 1)
  assert.equal(cached, false)
  assert.match(release.id, /^r1-[0-9a-f]{8}$/)
  const again = await deploy(controller, 'site/thermo', 1)
  assert.deepEqual(again, { release, cached: true })
  const second = await deploy(controller, 'site/thermo', 2)
  assert.equal(second.release.number, 2)

  const rollout = await api.createRollout(
    { function: 'site/thermo', settings: { replicas: 2, env: { A: '1' } } },
    signal(),
  )
  assert.equal(rollout.release, second.release.id)
  const snapshots = await collect(api.watchRollout(rollout.id, signal()))
  assert.equal(snapshots.at(-1)?.state, 'done')
  const [kept] = node.kept
  assert.equal(node.kept.length, 1)
  assert.equal(kept?.functions[0]?.settings.replicas, 2)
  assert.equal(kept?.functions[0]?.release, second.release.id)

  const answer = await controller.fetch('/v1/functions/site%2Fthermo/invoke/a%2Fb/c?x=1&y=%20', {
    method: 'PUT',
    body: 'twenty degrees',
    headers: { 'content-type': 'text/x-thing', 'x-mine': 'yes' },
  })
  assert.equal(answer.status, 200)
  assert.equal(await answer.text(), 'twenty degrees')
  assert.equal(answer.headers.get('shoal-node'), 'edge-1')
  const { head } = node.invokes[0] ?? assert.fail('no call arrived')
  assert.deepEqual(
    [head.fn, head.method, head.path, head.query, head.deadlineMs],
    ['site/thermo', 'PUT', '/a%2Fb/c', 'x=1&y=%20', 30_000],
  )
  const sent = new Map(head.headers)
  assert.equal(sent.get('content-type'), 'text/x-thing')
  assert.equal(sent.get('x-mine'), 'yes')
  assert.equal(sent.has('authorization'), false, 'the bearer token is not for functions')

  const asleep = await api.createRollout(
    { function: 'site/thermo', settings: { replicas: 0 } },
    signal(),
  )
  assert.equal(asleep.settings.idleMs, 300_000, 'it is put to sleep some time')
  const wrong = { function: 'site/thermo', settings: { replicas: 3, replicasMax: 2 } }
  await assert.rejects(api.createRollout(wrong, signal()), {
    code: 'REQUEST_INVALID',
    message: /settings\.replicasMax is 2, it must be at least 3/,
  })

  const removal = await api.removeFunction('site/thermo', signal())
  assert.deepEqual(removal, { removed: ['site/thermo'], pending: [] })
  assert.deepEqual(node.kept.at(-1)?.functions, [])
  assert.ok((node.kept.at(-1)?.generation ?? 0) > (kept?.generation ?? 0))
  await assert.rejects(api.function('site/thermo', signal()), { code: 'FUNCTION_UNKNOWN' })
  const third = await deploy(controller, 'site/thermo', 1)
  assert.equal(third.release.number, 3, 'a release id never means two things')
})

it('a node gets its artifact in ranges', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const { release } = await deploy(controller, 'sieve', 1)
  const { digest, bytes } = release
  const first = await node.fetchRange({ digest, offset: 0, bytes: 10 })
  const rest = await node.fetchRange({ digest, offset: 10, bytes: 512 * 1024 })
  assert.deepEqual([first.total, first.data.length], [bytes, 10])
  const whole = Buffer.concat([first.data, rest.data])
  assert.equal(`sha256:${createHash('sha256').update(whole).digest('hex')}`, digest)
  const behind = await node.fetchRange({ digest, offset: bytes, bytes: 1 })
  assert.deepEqual([behind.data.length, behind.total], [0, bytes])
  const unknown = await node.fetchRange({
    digest: `sha256:${'0'.repeat(64)}`,
    offset: 0,
    bytes: 1,
  })
  assert.equal(unknown.code, 'ARTIFACT_UNAVAILABLE')
})

it('log lines come from all nodes in order, and follow as long as somebody reads', async () => {
  await using controller = await controllerScope()
  await using one = await joinNode(controller, { name: 'edge-1' })
  await using two = await joinNode(controller, { name: 'edge-2' })
  const { release } = await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const line = (atMs: number, text: string) => ({
    atMs,
    fn: 'sieve',
    release: release.id,
    handler: 'h',
    level: 'info' as const,
    text,
  })
  one.logLines = [line(1, 'a'), line(3, 'c')]
  two.logLines = [line(2, 'b')]
  const past = await collect(controller.api.logs('sieve', { tail: 2 }, signal()))
  assert.deepEqual(
    past.map(({ node, text }) => [node, text]),
    [
      ['edge-2', 'b'],
      ['edge-1', 'c'],
    ],
  )
  const stop = new AbortController()
  const seen: string[] = []
  try {
    for await (const { text } of controller.api.logs('sieve', { follow: true }, stop.signal)) {
      seen.push(text)
      // At the seam a line may come by both ways, and is shown once.
      if (seen.length === 3) {
        one.publish(subjects.log('edge-1', 'sieve'), [line(3, 'c'), line(4, 'd')])
      }
      if (seen.length === 4) stop.abort()
    }
  } catch (error) {
    assert.ok(stop.signal.aborted, String(error))
  }
  assert.deepEqual(seen, ['a', 'b', 'c', 'd'])
  assert.ok(one.logRequests.some(({ followMs }) => followMs > 0))
})

it('what a call ends in on the node is what the caller gets', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  const call = (query = '') => controller.fetch(`/v1/functions/sieve/invoke${query}`)
  assert.deepEqual(await codeOf(await call()), [503, 'NODE_OFFLINE'])
  await roll(controller, 'sieve')
  node.answer = () => ({
    head: {
      status: 418,
      headers: [
        ['content-type', 'text/teapot'],
        ['set-cookie', 'a=1'],
        ['set-cookie', 'b=2'],
        ['connection', 'close'],
      ],
    },
    body: 'short',
  })
  const teapot = await call('?node=edge-1')
  assert.equal(teapot.status, 418)
  assert.equal(teapot.headers.get('content-type'), 'text/teapot')
  assert.deepEqual(teapot.headers.getSetCookie(), ['a=1', 'b=2'])
  assert.equal(await teapot.text(), 'short')
  assert.equal(node.invokes.at(-1)?.head.query, '')
  node.answer = () => ({
    head: { status: 0, headers: [], code: 'FUNCTION_ERROR', message: 'TypeError: x' },
    body: '',
  })
  assert.deepEqual(await codeOf(await call()), [500, 'FUNCTION_ERROR'])
  assert.deepEqual(await codeOf(await call('?node=edge-9')), [404, 'NODE_UNKNOWN'])
  const big = await controller.fetch('/v1/functions/sieve/invoke', {
    method: 'POST',
    body: new Uint8Array(768 * 1024 + 1),
  })
  assert.deepEqual(await codeOf(big), [413, 'BODY_TOO_LARGE'])
  await node.disconnect()
  await eventually(async () => !(await controller.api.node('edge-1', signal())).online)
  assert.deepEqual(await codeOf(await call()), [503, 'NODE_OFFLINE'])
})

it('wipe removes everything, and says which nodes have not confirmed', async () => {
  await using controller = await controllerScope()
  await using here = await joinNode(controller, { name: 'here' })
  await using away = await joinNode(controller, { name: 'away' })
  await deploy(controller, 'sieve', 1)
  await deploy(controller, 'echo', 2)
  await roll(controller, 'sieve')
  await roll(controller, 'echo')
  await away.disconnect()
  const response = await controller.fetch('/v1/wipe?waitMs=15000', { method: 'POST' })
  assert.deepEqual(await response.json(), { removed: ['echo', 'sieve'], pending: ['away'] })
  assert.deepEqual(here.kept.at(-1)?.functions, [])
  assert.deepEqual(await controller.api.functions(signal()), [])
  // The one that was away hears of it with its next hello.
  await away.connect()
  await eventually(() => away.kept.at(-1)?.functions.length === 0)
})
