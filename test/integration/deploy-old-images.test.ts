import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { it } from 'node:test'
import type Docker from 'dockerode'
import { busyboxImage } from '#test/busybox-image.ts'
import { dockerScope } from '#test/docker.ts'
import { tarOf } from '#test/source.ts'
import {
  BuildStages,
  markUsed,
  removeLeftovers,
  removeOldImages,
} from '../../deploy/bootstrap/old-images.ts'
import { drainProgress } from '../../deploy/bootstrap/progress.ts'

const HOUR_MS = 3_600_000

/** Builds in two stages, of which only the second is kept. */
async function build(docker: Docker, base: string, tag: string): Promise<BuildStages> {
  const dockerfile = [
    `FROM ${base} AS make`,
    `ENV MARK=${tag}`,
    'ENV MADE=1',
    `FROM ${base}`,
    `ENV RESULT=${tag}`,
  ].join('\n')
  const context = Readable.from([await tarOf({ Dockerfile: dockerfile })])
  const labels = { 'shoal.image': 'runtime' }
  const stages = new BuildStages()
  await drainProgress(await docker.buildImage(context, { t: tag, labels, rm: true }), (text) =>
    stages.line(text),
  )
  return stages
}

it('images of stages and of earlier versions go; the current one, the one before and what is used stay', async () => {
  await using scope = dockerScope()
  const { docker } = scope
  const base = await busyboxImage(docker, scope.run)
  // A name of this test's own: nobody else's images are looked at.
  const prefix = `test-${randomBytes(4).toString('hex')}/runtime-`
  const tags = ['a', 'b', 'c'].map((version) => `${prefix}nodejs:run-${version}`)
  await using stack = new AsyncDisposableStack()
  for (const tag of tags) {
    stack.defer(
      async () =>
        void (await docker
          .getImage(tag)
          .remove()
          .catch(() => undefined)),
    )
    const { leftovers } = await build(docker, base, tag)
    assert.equal(leftovers.length, 2)
    for (const id of leftovers) assert.ok(await docker.getImage(id).inspect())
    assert.equal(await removeLeftovers(docker, leftovers), 2)
    for (const id of leftovers) {
      await assert.rejects(docker.getImage(id).inspect(), { statusCode: 404 })
    }
  }
  const idOf = async (tag = '') => (await docker.getImage(tag).inspect()).Id
  const current = new Set([await idOf(tags[2])])
  const remove = (nowMs: number) =>
    removeOldImages({ docker, prefix, current, unusedMs: HOUR_MS, nowMs })
  assert.deepEqual(await remove(Date.now()), [], 'all were used just now')

  const user = await docker.createContainer({ Image: await idOf(tags[0]), Cmd: ['true'] })
  try {
    assert.deepEqual(await remove(Date.now() + 2 * HOUR_MS), [], 'a container uses it')
  } finally {
    await user.remove({ force: true })
  }
  // Its build was before this moment, so that without the mark it would be an hour old by then.
  const askedMs = Date.now()
  await markUsed(docker, tags[0] ?? '')
  assert.deepEqual(await remove(askedMs + HOUR_MS - 1), [], 'used again')
  assert.deepEqual(await remove(Date.now() + 2 * HOUR_MS), [tags[0]])
  // The current one and the one before are there.
  for (const tag of [tags[1], tags[2]]) assert.ok(await idOf(tag))
})
