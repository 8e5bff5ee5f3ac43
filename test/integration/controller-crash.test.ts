import assert from 'node:assert/strict'
import { createHash, randomInt } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Value } from 'typebox/value'
import { releaseId } from '#controller/catalogue/index.ts'
import { SqliteStore } from '#controller/store/index.ts'
import { verifyEnvelope } from '#shared/envelope.ts'
import { NodeCommand, type TrustDocument } from '#shared/schemas/command.ts'
import { controllerScope, type ControllerScope } from '#test/controller-scope.ts'
import { deploy, joinNode, roll, signal } from '#test/deploy.ts'
import { eventually } from '#test/eventually.ts'

const KILLS = 10
/** Longer than one deployment takes. */
const KILL_WITHIN_MS = 700

it('SIGKILL at any moment of a deployment leaves whole releases, and generations that never fall', async (t) => {
  await using controller = await controllerScope()
  await using node = await joinNode(controller, { name: 'edge-1' })
  await deploy(controller, 'sieve', 1)
  await roll(controller, 'sieve')
  let highest = node.generation
  const interrupted = { deploys: 0, rollouts: 0 }
  for (let round = 1; round <= KILLS; round += 1) {
    const killAfterMs = randomInt(KILL_WITHIN_MS)
    const work = deployUntilKilled(controller, round * 100, interrupted)
    await sleep(killAfterMs)
    await controller.kill('SIGKILL')
    await work
    const generation = await checkDisk(controller, node.trust)
    assert.ok(
      generation >= highest,
      `round ${round}, killed after ${killAfterMs} ms: generation fell from ${highest} to ${generation}`,
    )
    assert.ok(generation >= node.generation, 'no node has what was never written down')
    highest = generation
    await controller.start()
  }
  t.diagnostic(`${interrupted.deploys} deploys and ${interrupted.rollouts} rollouts interrupted`)
  assert.ok(interrupted.deploys + interrupted.rollouts > 0, 'every kill came too late to matter')
  const generations = node.kept.map(({ generation }) => generation)
  assert.deepEqual(
    generations,
    generations.toSorted((a, b) => a - b),
  )
  // No rollout is left hanging, and the next one goes through.
  const { release } = await deploy(controller, 'sieve', 9_999)
  assert.equal((await roll(controller, 'sieve')).state, 'done')
  assert.equal(node.kept.at(-1)?.functions[0]?.release, release.id)
  await eventually(async () => {
    const rollouts = await controller.api.rollouts(undefined, signal())
    return rollouts.every(({ state }) => state !== 'rolling' && state !== 'waiting')
  })
})

/** Uploads and rolls out new versions without a pause until the controller is gone. */
async function deployUntilKilled(
  controller: ControllerScope,
  firstVersion: number,
  interrupted: { deploys: number; rollouts: number },
): Promise<void> {
  for (let version = firstVersion; ; version += 1) {
    try {
      await deploy(controller, 'sieve', version)
    } catch {
      interrupted.deploys += 1
      return
    }
    try {
      await roll(controller, 'sieve')
    } catch {
      interrupted.rollouts += 1
      return
    }
  }
}

/** What lies on the disk while no controller runs. @returns generation of the node's command */
async function checkDisk({ folder }: ControllerScope, trust: TrustDocument): Promise<number> {
  const data = join(folder, 'controller')
  await using store = SqliteStore.open(join(data, 'shoal.db'))
  const releases = await store.releases('sieve')
  assert.ok(releases.length > 0)
  for (const { id, number, digest, bytes } of releases) {
    assert.equal(id, releaseId(number, digest))
    const hex = digest.slice('sha256:'.length)
    const content = await readFile(join(data, 'artifacts', 'sha256', hex.slice(0, 2), hex))
    assert.equal(content.length, bytes)
    assert.equal(createHash('sha256').update(content).digest('hex'), hex)
  }
  // Whatever has a name in the store is whole, named in the catalogue or not.
  const root = join(data, 'artifacts', 'sha256')
  for (const shard of await readdir(root)) {
    for (const hex of await readdir(join(root, shard))) {
      const content = await readFile(join(root, shard, hex))
      assert.equal(createHash('sha256').update(content).digest('hex'), hex)
    }
  }
  for (const { fn, release } of await store.assignments()) {
    assert.ok(await store.release(fn, release), 'an assignment names a release that is there')
  }
  const open = await store.rollouts({ open: true })
  assert.ok(open.length <= 1, 'a rollout that was superseded is not open')
  const command = (await store.nodeCommand('edge-1')) ?? assert.fail('no command')
  const payload = await verifyEnvelope(command.envelope, trust, 'command')
  const signed = Value.Parse(NodeCommand, payload)
  assert.equal(signed.generation, command.generation, 'the generation is that of its envelope')
  return command.generation
}
