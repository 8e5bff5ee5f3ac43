import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createUser } from '@nats-io/nkeys'
import { Value } from 'typebox/value'
import { JoinToken } from '#shared/schemas/wire.ts'
import { subjects } from '#shared/subjects.ts'
import { controllerScope, type ControllerScope } from '#test/controller-scope.ts'
import { deploy, joinNode, roll, signal } from '#test/deploy.ts'
import { eventually } from '#test/eventually.ts'
import { heartbeatOf } from '#test/heartbeat.ts'
import { TestNode } from '#test/test-node.ts'

const secretOf = (token: string) =>
  Value.Parse(JoinToken, JSON.parse(Buffer.from(token, 'base64url').toString())).secret

async function tryJoin(
  { url }: ControllerScope,
  request: { secret: string; nodeKey: string; name?: string },
): Promise<{
  status: number
  node: string | undefined
  code: string | undefined
  message: string | undefined
}> {
  const response = await fetch(`${url}/v1/join`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ arch: 'amd64', labels: {}, ...request }),
  })
  const { node, code, message }: { node?: string; code?: string; message?: string } = JSON.parse(
    await response.text(),
  )
  return { status: response.status, node, code, message }
}

const newKey = () => createUser().getPublicKey()

it('a join token is good for its uses and its time, and a lost reply costs none', async () => {
  await using controller = await controllerScope()
  const { api } = controller
  const { token, expiresAtMs } = await api.createToken({ uses: 2, ttlMs: 60_000 }, signal())
  assert.ok(Math.abs(expiresAtMs - Date.now() - 60_000) < 10_000)
  const secret = secretOf(token)
  const nodeKey = newKey()
  const first = await tryJoin(controller, { secret, nodeKey, name: 'edge' })
  assert.deepEqual([first.status, first.node], [200, 'edge'])
  const again = await tryJoin(controller, { secret, nodeKey, name: 'edge' })
  assert.deepEqual([again.status, again.node], [200, 'edge'])
  const second = await tryJoin(controller, { secret, nodeKey: newKey(), name: 'edge' })
  assert.deepEqual([second.status, second.node], [200, 'edge-2'])
  const third = await tryJoin(controller, { secret, nodeKey: newKey(), name: 'edge' })
  assert.deepEqual([third.status, third.code], [403, 'JOIN_REFUSED'])
  const stillFirst = await tryJoin(controller, { secret, nodeKey, name: 'edge' })
  assert.deepEqual([stillFirst.status, stillFirst.node], [200, 'edge'])

  const brief = await api.createToken({ ttlMs: 1_000, uses: 1_000 }, signal())
  await eventually(async () => {
    const late = await tryJoin(controller, { secret: secretOf(brief.token), nodeKey: newKey() })
    return late.status === 403 && /expired/.test(late.message ?? '')
  })
  const guess = await tryJoin(controller, { secret: 'x'.repeat(43), nodeKey: newKey() })
  assert.deepEqual([guess.status, guess.code], [403, 'JOIN_REFUSED'])
  const names = (await api.nodes(signal())).map(({ id, online }) => [id, online])
  assert.ok(names.length >= 2)
  assert.deepEqual(names.slice(0, 2), [
    ['edge', false],
    ['edge-2', false],
  ])
})

it('a node is online with its first beat and offline after three missed ones; gaps and boots are counted', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1', labels: { site: 'north' } })
  const { api } = controller
  const view = await api.node('edge-1', signal())
  assert.equal(view.online, true)
  assert.deepEqual(view.labels, { site: 'north' })
  assert.equal(view.inventory?.engineVersion, 'test')
  node.different = { boot: 'another', seq: 10 }
  await eventually(async () => (await api.node('edge-1', signal())).boots >= 2)
  node.different = { boot: 'another', seq: 15 }
  await eventually(async () => (await api.node('edge-1', signal())).missedBeats >= 4)
  await node.disconnect()
  // Three of its own: three of those that are the default take longer than this.
  await eventually(async () => !(await api.node('edge-1', signal())).online, { timeoutMs: 25_000 })
  await node.connect()
  await eventually(async () => (await api.node('edge-1', signal())).online)
})

it('what a node says it keeps is compared and put right', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  assert.equal((await roll(controller, 'sieve')).state, 'done')
  const first = node.generation
  // It keeps something else under the same generation: only a higher one replaces that.
  node.different = { stateDigest: `sha256:${'0'.repeat(64)}` }
  node.beat()
  await eventually(() => node.generation > first)
  node.different = {}
  // Its disk has lost the newest command: the same one is sent again.
  const lost = node.kept.pop() ?? assert.fail()
  const before = node.generation
  assert.ok(before < lost.generation)
  node.beat()
  await eventually(() => node.generation > before)
  // A controller restored from a backup: the node keeps a higher generation than was ever made.
  node.kept.push({ ...lost, generation: 1_000, functions: [] })
  node.beat()
  await eventually(() => node.generation > 1_000)
  assert.deepEqual(
    node.kept.at(-1)?.functions.map(({ fn }) => fn),
    ['sieve'],
  )
  const view = await eventually(async () => {
    const now = await controller.api.node('edge-1', signal())
    return now.acceptedGeneration === now.generation && now
  })
  assert.equal(view.generation, node.generation)
})

it('a command that has expired before its node came is made anew', async () => {
  await using controller = await controllerScope({ env: { SHOAL_COMMAND_EXPIRES_MS: '10000' } })
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  await node.disconnect()
  await controller.api.createRollout({ function: 'sieve' }, signal())
  const { generation } = await eventually(async () => {
    const view = await controller.api.node('edge-1', signal())
    return view.generation > 0 && view
  })
  const madeAtMs = Date.now()
  await eventually(() => Date.now() - madeAtMs > 10_100, { timeoutMs: 60_000 })
  await node.connect()
  const kept = await eventually(() => node.kept.at(-1))
  assert.ok(kept.generation > generation)
  assert.ok(kept.expiresAtMs > Date.now())
})

it('messages of deleted nodes, for others, or that cannot be read change nothing', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await using other = await joinNode(controller, { name: 'edge-2' })
  const { api } = controller
  const before = await api.node('edge-2', signal())
  node.publish(subjects.health('edge-1'), heartbeatOf('edge-2', { boot: 'forged', seq: 1 }))
  node.publish(subjects.health('edge-1'), { node: 'edge-1', garbage: true })
  node.publish(subjects.health('edge-2'), heartbeatOf('edge-2', { boot: 'forged', seq: 1 }))
  await api.removeNode('edge-1', signal())
  await assert.rejects(api.node('edge-1', signal()), { code: 'NODE_UNKNOWN' })
  const metrics = await eventually(async () => {
    const text = await (await controller.fetch('/metrics')).text()
    const rejected = /^shoal_controller_rejected_messages_total (\d+)$/m.exec(text)?.[1]
    // Two that could not be taken, and beats of the deleted node.
    return Number(rejected) >= 3 && text
  })
  assert.match(metrics, /^shoal_controller_nodes_count 1$/m)
  assert.equal((await api.node('edge-2', signal())).boots, before.boots)
  assert.equal(other.kept.length, 0)
})

it('a deleted node is told to run nothing, and its id is never given to another key', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const { api } = controller
  await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  await api.removeNode('edge-1', signal())
  assert.deepEqual(node.kept.at(-1)?.functions, [])
  await assert.rejects(api.removeNode('edge-1', signal()), { code: 'NODE_UNKNOWN' })
  const { token } = await api.createToken({}, signal())
  const heir = await TestNode.join(token, { name: 'edge-1' })
  assert.equal(heir.id, 'edge-1-2')
})

it('a node that was away when it was deleted is told at its return, and gets no artifacts any more', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const { api } = controller
  const { release } = await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const range = { digest: release.digest, offset: 0, bytes: 10 }
  assert.equal((await node.fetchRange(range)).code, undefined)
  await node.disconnect()
  await eventually(async () => !(await api.node('edge-1', signal())).online)
  await api.removeNode('edge-1', signal())
  await node.connect()
  assert.deepEqual(node.kept.at(-1)?.functions, [])
  assert.equal((await node.fetchRange(range)).code, 'ARTIFACT_UNAVAILABLE')
  await assert.rejects(api.node('edge-1', signal()), { code: 'NODE_UNKNOWN' })
})

it('a token that names only this host says so', async () => {
  await using near = await controllerScope()
  const { warning } = await near.api.createToken({}, signal())
  assert.match(warning ?? '', /SHOAL_API_URL.*SHOAL_NATS_PUBLIC_URL/)
  await using far = await controllerScope({
    env: {
      SHOAL_API_URL: 'http://edge.example:7420',
      SHOAL_NATS_PUBLIC_URL: 'nats://edge.example:4222',
    },
  })
  assert.equal((await far.api.createToken({}, signal())).warning, undefined)
})

it('a controller that comes back finds its nodes and goes on from the generation it had', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const before = node.generation
  const exit = await controller.kill('SIGTERM')
  assert.deepEqual(exit, { code: 0, signal: null })
  await controller.start()
  await deploy(controller, 'sieve', 2)
  const second = await roll(controller, 'sieve')
  assert.equal(second.state, 'done')
  assert.equal(node.generation, before + 1)
})
