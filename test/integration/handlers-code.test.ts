import assert from 'node:assert/strict'
import {
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { HandlerFolders, newRecord } from '#agent/handlers/index.ts'
import { SETTINGS } from '#test/reconcile-scope.ts'
import { tempFolder } from '#test/temp.ts'

const BUILT = new Date('2026-01-02T03:04:05Z')

/** An unpacked bundle with everything that one can have. */
async function bundleIn(folder: string): Promise<string> {
  const bundle = join(folder, 'bundle')
  await mkdir(join(bundle, 'lib/deep/empty'), { recursive: true })
  await writeFile(join(bundle, 'index.mjs'), 'export default 1')
  await writeFile(join(bundle, 'lib/deep/tool'), '#!/bin/sh\n')
  await chmod(join(bundle, 'lib/deep/tool'), 0o755)
  await symlink('deep/tool', join(bundle, 'lib/link'))
  await symlink('nowhere', join(bundle, 'lib/dangling'))
  await utimes(join(bundle, 'index.mjs'), BUILT, BUILT)
  return bundle
}

function recordOf(bundleFolder: string) {
  const artifact = { digest: `sha256:${'0'.repeat(64)}`, bytes: 1 }
  const assignment = { fn: 'hello', release: 'r1-0a1b2c3d', runtime: 'nodejs' as const, artifact }
  return newRecord({ ...assignment, settings: SETTINGS }, 'image', bundleFolder)
}

/** Every path below a folder, with what it is. */
async function treeOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const lines = entries.map(async (entry) => {
    const path = join(entry.parentPath, entry.name)
    const name = path.slice(folder.length + 1)
    if (entry.isSymbolicLink()) return `${name} -> ${await readlink(path)}`
    const { mode } = await stat(path)
    const bits = (mode & 0o777).toString(8)
    return entry.isDirectory()
      ? `${name}/ ${bits}`
      : `${name} ${bits} ${await readFile(path, 'utf8')}`
  })
  return (await Promise.all(lines)).toSorted()
}

describe("a function's code in its handler's folder", () => {
  for (const [where, parent] of [
    ['the same file system', undefined],
    ['another file system', '/dev/shm'],
  ] as const) {
    it(`is the bundle's tree, whatever the umask, on ${where}`, async () => {
      await using temp = await tempFolder()
      const root = parent === undefined ? temp.join('h') : await mkdtemp(`${parent}/shoal-`)
      const umask = process.umask(0o077)
      try {
        const bundle = await bundleIn(temp.path)
        // The bundle store sets what the umask takes away.
        for (const path of ['', 'lib', 'lib/deep', 'lib/deep/empty', 'lib/deep/tool']) {
          await chmod(join(bundle, path), 0o755)
        }
        await chmod(join(bundle, 'index.mjs'), 0o644)
        const folders = await HandlerFolders.open(root)
        const record = recordOf(bundle)
        await folders.create(record)
        await folders.place(record)
        const code = join(folders.folderOf(record.id), 'fn')
        assert.deepEqual(await treeOf(code), await treeOf(bundle))
        const [inside, outside] = [
          await stat(join(code, 'index.mjs')),
          await stat(join(bundle, 'index.mjs')),
        ]
        assert.equal(inside.mtimeMs, BUILT.getTime())
        assert.equal(inside.ino === outside.ino, parent === undefined)
        // A handler goes with its links, the bundle stays.
        await folders.remove(record.id)
        assert.equal((await treeOf(bundle)).length, 7)
      } finally {
        process.umask(umask)
        if (parent !== undefined) await rm(root, { recursive: true, force: true })
      }
    })
  }

  it('is whole after an agent was cut off while it was put there, and stays when it is', async () => {
    await using temp = await tempFolder()
    const folders = await HandlerFolders.open(temp.join('h'))
    const bundle = await bundleIn(temp.path)
    const record = recordOf(bundle)
    await folders.create(record)
    const folder = folders.folderOf(record.id)
    await mkdir(join(folder, '.fn/lib'), { recursive: true })
    await writeFile(join(folder, '.fn/index.mjs'), 'hal')
    await folders.place(record)
    assert.deepEqual(await treeOf(join(folder, 'fn')), await treeOf(bundle))
    assert.deepEqual((await readdir(folder)).toSorted(), ['fn', 'handler.json'])
    await folders.place(record)
    assert.deepEqual(await treeOf(join(folder, 'fn')), await treeOf(bundle))
  })

  it('is not there at all when the bundle is gone', async () => {
    await using temp = await tempFolder()
    const folders = await HandlerFolders.open(temp.join('h'))
    const record = recordOf(temp.join('nothing'))
    await folders.create(record)
    await assert.rejects(folders.place(record), { code: 'STORAGE', message: /nothing/ })
    assert.equal((await readdir(folders.folderOf(record.id))).includes('fn'), false)
  })
})
