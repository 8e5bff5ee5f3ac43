import assert from 'node:assert/strict'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { HandlerFolders, newRecord, specOf } from '#agent/handlers/index.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import { SETTINGS } from '#test/reconcile-scope.ts'
import { tempFolder } from '#test/temp.ts'

const ASSIGNMENT: Assignment = {
  fn: 'site/thermo',
  release: 'r7-0a1b2c3d',
  runtime: 'nodejs',
  entry: 'main.js',
  artifact: { digest: `sha256:${'0'.repeat(64)}`, bytes: 1 },
  settings: { ...SETTINGS, env: { SECRET: 'for the function only' } },
}

const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777

describe("a handler's folder", () => {
  it('gives back what was written about the handler, to its owner only', async () => {
    await using temp = await tempFolder()
    const folders = await HandlerFolders.open(temp.join('h'))
    const record = newRecord(ASSIGNMENT, 'image', '/bundles/0')
    await folders.create(record)
    const again = await HandlerFolders.open(temp.join('h'))
    assert.deepEqual(again.read(), { ids: [record.id], records: [record] })
    assert.equal(await modeOf(join(temp.path, 'h')), 0o700)
    // The handler's own user comes in by its mount, and finds no secrets to read.
    assert.equal(await modeOf(join(temp.path, 'h', record.id)), 0o755)
    assert.equal(await modeOf(join(temp.path, 'h', record.id, 'handler.json')), 0o600)
    assert.equal(specOf(record, again.root).folder, join(temp.path, 'h', record.id))
    await again.remove(record.id)
    await again.remove(record.id)
    assert.deepEqual(again.read(), { ids: [], records: [] })
  })

  it('has no record when a power cut left only a part of it, wherever it was cut', async () => {
    await using temp = await tempFolder()
    const folders = await HandlerFolders.open(temp.join('h'))
    const record = newRecord(ASSIGNMENT, 'image', '/bundles/0')
    await folders.create(record)
    const file = join(temp.path, 'h', record.id, 'handler.json')
    const whole = await readFile(file)
    for (let bytes = 0; bytes < whole.length; bytes++) {
      await writeFile(file, whole.subarray(0, bytes))
      assert.deepEqual(folders.read(), { ids: [record.id], records: [] }, `${bytes} bytes`)
    }
    await writeFile(file, whole)
    assert.deepEqual(folders.read().records, [record])
  })
})
