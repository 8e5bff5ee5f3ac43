import assert from 'node:assert/strict'
import { it } from 'node:test'
import { buildRelease } from '#deploy/bundle/index.ts'
import { startsWell } from '#test/bundled-agent.ts'
import { dockerScope } from '#test/docker.ts'
import { NodeUnderTest } from '#test/node-under-test.ts'
import { tempFolder } from '#test/temp.ts'

const FUNCTIONS = 4

it('the bundled agent runs functions in containers and leaves them to its next start', async () => {
  await using release = await tempFolder()
  await buildRelease({ folder: release.path })
  const launcher = [release.join('shoal-agent')]
  await using scope = dockerScope()
  await using node = await NodeUnderTest.create(
    { engine: 'docker', functions: FUNCTIONS },
    launcher,
  )
  const label = `shoal=${await node.installation()}`
  scope.alsoRemove(label)
  const containers = async (): Promise<readonly string[]> => {
    const found = await scope.docker.listContainers({ filters: { label: [label] } })
    return found.map(({ Id }) => Id).toSorted()
  }
  const before = await containers()
  assert.equal(before.length, FUNCTIONS)
  await startsWell(node, launcher)
  assert.deepEqual(await containers(), before)
})
