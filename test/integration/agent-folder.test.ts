import assert from 'node:assert/strict'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { AgentFolder } from '#agent/config/index.ts'
import { Fault } from '#shared/fault.ts'
import { tempFolder } from '#test/temp.ts'

it('the id of an installation outlives its file, and is never replaced by another one', async () => {
  await using temp = await tempFolder()
  await using folder = await AgentFolder.open(temp.path)
  const id = await folder.installationId()
  assert.equal(await folder.installationId(), id)
  await rm(temp.join('installation-id'))
  assert.equal(await folder.installationId(), id, 'there is a spare')
  for (const name of await readdir(temp.path)) {
    if (name.startsWith('installation-id')) await writeFile(temp.join(name), '')
  }
  await assert.rejects(
    folder.installationId(),
    (error: unknown) => Fault.is(error, 'STORAGE') && /installation-id/.test(error.message),
  )
})
