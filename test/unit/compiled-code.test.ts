import assert from 'node:assert/strict'
import { access, mkdir, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { keepCompiled } from '#agent/memory/index.ts'
import { tempFolder } from '#test/temp.ts'

it('what Node has compiled is kept up to a size, then it begins anew', async () => {
  await using folder = await tempFolder()
  const compiled = folder.join('compiled')
  await mkdir(folder.join('compiled/v1'), { recursive: true })
  for (const name of ['a', 'b']) await writeFile(folder.join(`compiled/v1/${name}`), 'x'.repeat(50))
  await keepCompiled(compiled, 100)
  await access(folder.join('compiled/v1/b'))
  await keepCompiled(compiled, 99)
  await assert.rejects(access(compiled), { code: 'ENOENT' })
  // No cache, no complaint.
  await keepCompiled(compiled)
})
