import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { AssignmentView, type RolloutNode } from '#shared/schemas/api.ts'
import { Fault } from '#shared/fault.ts'
import { controllerScope } from '#test/controller-scope.ts'
import { deploy, joinNode, roll, signal } from '#test/deploy.ts'
import { eventually } from '#test/eventually.ts'
import { tarOf } from '#test/source.ts'

const states = (nodes: readonly RolloutNode[]) => nodes.map(({ node, state }) => [node, state])

it('an offline node never blocks: the rollout waits, and is done when the node returns', async () => {
  await using controller = await controllerScope()
  await using here = await joinNode(controller, { name: 'here' })
  await using away = await joinNode(controller, { name: 'away' })
  await deploy(controller, 'sieve', 1)
  await away.disconnect()
  await eventually(async () => !(await controller.api.node('away', signal())).online)
  const waiting = await roll(controller, 'sieve')
  assert.equal(waiting.state, 'waiting')
  assert.equal(waiting.reason, 'offline: away')
  assert.deepEqual(states(waiting.nodes), [
    ['away', 'offline'],
    ['here', 'ready'],
  ])
  assert.equal(here.kept.length, 1)
  await away.connect()
  const done = await eventually(async () => {
    const now = await controller.api.rollout(waiting.id, signal())
    return now.state === 'done' && now
  })
  assert.deepEqual(states(done.nodes), [
    ['away', 'ready'],
    ['here', 'ready'],
  ])
  assert.equal(away.kept.at(-1)?.functions[0]?.fn, 'sieve')
})

it('a release that does not run fails the rollout, with the reason of each node', async () => {
  await using controller = await controllerScope()
  await using good = await joinNode(controller, { name: 'good' })
  await using bad = await joinNode(controller, { name: 'bad' })
  await deploy(controller, 'sieve', 1)
  bad.react = () => ({
    state: 'failed',
    serving: [],
    reason: { code: 'FUNCTION_LOAD', message: 'SyntaxError: line 1' },
  })
  const failed = await roll(controller, 'sieve')
  assert.equal(failed.state, 'failed')
  assert.equal(failed.reason, 'bad: FUNCTION_LOAD: SyntaxError: line 1')
  assert.deepEqual(failed.nodes.find(({ node }) => node === 'bad')?.reason, {
    code: 'FUNCTION_LOAD',
    message: 'SyntaxError: line 1',
  })
  assert.equal(good.kept.length, 1)
  const view = await controller.api.function('sieve', signal())
  assert.deepEqual(view.placements, [], 'what failed is no placement')
  assert.deepEqual(
    view.nodes.map(({ node, state }) => [node, state]),
    [
      ['bad', 'failed'],
      ['good', 'ready'],
    ],
  )
})

it('a refused command is shown with its reason, at the node and in the rollout', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  node.refuseWith = { code: 'COMMAND_SIGNATURE', message: '0 good signatures' }
  const failed = await roll(controller, 'sieve')
  assert.equal(failed.state, 'failed')
  assert.deepEqual(failed.nodes[0]?.state, 'refused')
  assert.deepEqual(failed.nodes[0]?.reason?.code, 'COMMAND_SIGNATURE')
  node.different = {
    refusal: { code: 'COMMAND_SIGNATURE', message: '0 good signatures', atMs: 1 },
  }
  const shown = await eventually(
    async () => (await controller.api.node('edge-1', signal())).refusal,
  )
  assert.equal(shown.code, 'COMMAND_SIGNATURE')
  assert.equal(node.kept.length, 0)
  // Not given up: when the node takes it at last, it has it.
  node.refuseWith = undefined
  node.different = {}
  await eventually(() => node.kept.length === 1)
})

it('nodes of another architecture are refused by name and get no command', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'arm', arch: 'arm64' })
  const source = { kind: 'archive', type: 'application/x-tar', body: await withAddOn() } as const
  const { release } = await controller.api.createRelease('hello', { source }, () => {}, signal())
  assert.equal(release.arch, 'amd64')
  const failed = await roll(controller, 'hello')
  assert.equal(failed.state, 'failed')
  assert.equal(failed.nodes[0]?.state, 'refused')
  assert.equal(failed.nodes[0]?.reason?.code, 'ARCH_MISMATCH')
  assert.equal(node.kept.length, 0)
})

it('a newer rollout supersedes the older one', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const first = await deploy(controller, 'sieve', 1)
  const second = await deploy(controller, 'sieve', 2)
  node.react = ({ release }) =>
    release === first.release.id ? { state: 'starting', serving: [] } : {}
  const { api } = controller
  const older = await api.createRollout({ function: 'sieve', release: first.release.id }, signal())
  const newer = await roll(controller, 'sieve', { release: second.release.id })
  assert.equal(newer.state, 'done')
  const ended = await api.rollout(older.id, signal())
  assert.equal(ended.state, 'aborted')
  assert.equal(ended.reason, `superseded by rollout ${newer.id}`)
})

it('abort gives an offline node back what it had; who has the new release keeps it', async () => {
  await using controller = await controllerScope()
  await using here = await joinNode(controller, { name: 'here' })
  await using away = await joinNode(controller, { name: 'away' })
  const { api } = controller
  const first = await deploy(controller, 'sieve', 1)
  assert.equal((await roll(controller, 'sieve')).state, 'done')
  const second = await deploy(controller, 'sieve', 2)
  await away.disconnect()
  await eventually(async () => !(await api.node('away', signal())).online)
  const { id } = await roll(controller, 'sieve')
  const aborted = await api.abortRollout(id, signal())
  assert.deepEqual([aborted.state, aborted.reason], ['aborted', 'aborted by request'])
  const response = await controller.fetch('/v1/assignments')
  const assignments = Value.Parse(Type.Array(AssignmentView), await response.json())
  assert.deepEqual(
    assignments.map(({ node, release }) => [node, release]),
    [
      ['away', first.release.id],
      ['here', second.release.id],
    ],
  )
  await away.connect()
  await eventually(() => away.kept.at(-1)?.functions[0]?.release === first.release.id)
  assert.equal(here.kept.at(-1)?.functions[0]?.release, second.release.id)
  assert.deepEqual(await api.abortRollout(id, signal()), aborted)
})

it('a node that joins later and matches the placement gets the function; another does not', async () => {
  await using controller = await controllerScope()
  await using first = await joinNode(controller, { name: 'n-1', labels: { site: 'north' } })
  await deploy(controller, 'sieve', 1)
  assert.equal((await roll(controller, 'sieve', { selector: 'site=north' })).state, 'done')
  await using second = await joinNode(controller, { name: 'n-2', labels: { site: 'north' } })
  await using third = await joinNode(controller, { name: 's-1', labels: { site: 'south' } })
  await eventually(() => second.kept.at(-1)?.functions[0]?.fn === 'sieve')
  assert.equal(third.kept.length, 0)
  assert.equal(first.kept.length, 1)
  const { placements } = await controller.api.function('sieve', signal())
  assert.deepEqual(
    placements.map(({ selector }) => selector),
    ['site=north'],
  )
})

it('a release for one node takes the function away from no later one', async () => {
  await using controller = await controllerScope()
  await using first = await joinNode(controller, { name: 'n-1' })
  await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const { release: hotfix } = await deploy(controller, 'sieve', 2)
  assert.equal((await roll(controller, 'sieve', { selector: 'n-1' })).state, 'done')
  assert.equal(first.kept.at(-1)?.functions[0]?.release, hotfix.id)
  await using second = await joinNode(controller, { name: 'n-2' })
  await eventually(() => second.kept.length > 0)
  assert.match(second.kept.at(-1)?.functions[0]?.release ?? '', /^r1-/)
  assert.equal((await roll(controller, 'sieve')).state, 'done')
  const { placements } = await controller.api.function('sieve', signal())
  assert.deepEqual(
    placements.map(({ selector, release }) => [selector, release]),
    [['*', hotfix.id]],
    'a rollout to all nodes says it all',
  )
})

it('when a release fails, nodes go back to the one that worked, and offline ones never get it', async () => {
  await using controller = await controllerScope()
  await using here = await joinNode(controller, { name: 'here' })
  await using away = await joinNode(controller, { name: 'away' })
  const { release: good } = await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const { release: bad } = await deploy(controller, 'sieve', 2)
  await away.disconnect()
  await eventually(async () => !(await controller.api.node('away', signal())).online)
  here.react = ({ release }) =>
    release === bad.id
      ? { state: 'failed', serving: [], reason: { code: 'FUNCTION_LOAD', message: 'line 1' } }
      : {}
  assert.equal((await roll(controller, 'sieve')).state, 'failed')
  await eventually(() => here.kept.at(-1)?.functions[0]?.release === good.id)
  await away.connect()
  await eventually(async () => (await controller.api.node('away', signal())).online)
  await eventually(() => away.generation > 1)
  assert.ok(away.kept.every(({ functions }) => functions[0]?.release === good.id))
})

it('an old refusal of a node does not fail the next rollout', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  const { generation } = node
  node.different = { refusal: { code: 'COMMAND_REPLAYED', message: 'old', atMs: 1, generation } }
  node.beat()
  await eventually(
    async () => (await controller.api.node('edge-1', signal())).refusal !== undefined,
  )
  node.answerAfterMs = 2_500
  await deploy(controller, 'sieve', 2)
  const { state, reason } = await roll(controller, 'sieve')
  assert.deepEqual([state, reason], ['done', undefined])
})

it('an environment that no longer fits into the command of a node is refused before anything changes', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const { api } = controller
  const env = { BIG: 'x'.repeat(30_000) }
  const names = Array.from({ length: 24 }, (_, index) => `fn-${index}`)
  const outcomes: string[] = []
  for (const name of names) {
    await deploy(controller, name, 1)
    const rollout = api.createRollout({ function: name, settings: { env } }, signal())
    outcomes.push(
      await rollout.then(
        ({ state }) => state,
        (error: unknown) => Fault.from(error).code,
      ),
    )
  }
  assert.equal(outcomes.at(-1), 'CONFLICT')
  await eventually(() => node.kept.at(-1)?.functions.length === outcomes.indexOf('CONFLICT'))
  await deploy(controller, 'small', 1)
  assert.equal((await roll(controller, 'small')).state, 'done', 'others are not held up')
})

it('a delete while rolling aborts the rollout', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const { api } = controller
  await deploy(controller, 'sieve', 1)
  node.react = () => ({ state: 'starting', serving: [] })
  const { id } = await api.createRollout({ function: 'sieve' }, signal())
  await eventually(() => node.kept.length === 1)
  const removal = await api.removeFunction('sieve', signal())
  assert.deepEqual(removal, { removed: ['sieve'], pending: [] })
  const ended = await api.rollout(id, signal())
  assert.deepEqual([ended.state, ended.reason], ['aborted', 'the function was deleted'])
  assert.deepEqual(node.kept.at(-1)?.functions, [])
})

it('a rollout that is not ready by its deadline has timed out, with the nodes named', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  node.react = () => ({ state: 'fetching', serving: [] })
  const ended = await roll(controller, 'sieve', { deadlineMs: 1_000 })
  assert.equal(ended.state, 'timed-out')
  // How far the node had come by then is up to the machine.
  const reason = /^not ready in time: edge-1 is (?:pending|sent|applying)$/
  assert.match(ended.reason ?? '', reason)
})

it('settings that are not given are inherited from the last rollout', async () => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  const { api } = controller
  await deploy(controller, 'sieve', 1)
  const create = (settings: { replicas?: number; memoryMiB?: number }) =>
    api.createRollout({ function: 'sieve', settings }, signal())
  await create({ replicas: 3 })
  const second = await create({ memoryMiB: 64 })
  assert.deepEqual(
    [second.settings.replicas, second.settings.memoryMiB, second.settings.timeoutMs],
    [3, 64, 30_000],
  )
  await eventually(() => node.kept.at(-1)?.functions[0]?.settings.memoryMiB === 64)
})

/** A function with something installed, which therefore fits one architecture only. Needs no network. */
/** With a native add-on for amd64: the head of an ELF file is all that is looked at. */
function withAddOn(): Promise<Buffer> {
  return tarOf({
    'index.js': `module.exports = (req, res) => res.send('ok')\n`,
    'lib/addon.node': `\u007fELF\u0002\u0001\u0001${'\0'.repeat(11)}\u003e${'\0'.repeat(45)}`,
  })
}
