import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { tempFolder } from '#test/temp.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

async function filesOf(folder: string): Promise<Map<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = new Map<string, string>()
  for (const entry of entries.filter((one) => one.isFile())) {
    const path = join(entry.parentPath, entry.name)
    files.set(path.slice(folder.length + 1), await readFile(path, 'utf8'))
  }
  return files
}

test('the generated code is what the .proto files give today (else: npm run gen)', async () => {
  await using folder = await tempFolder()
  const bin = join(root, 'node_modules/.bin')
  const env = { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}` }
  const cwd = join(root, 'proto')
  await run('buf', ['generate', '--output', folder.path], { cwd, env, timeout: 60_000 })
  const committed = await filesOf(join(root, 'proto/gen'))
  assert.ok(committed.size >= 5, `only ${committed.size} generated files were found`)
  assert.deepEqual(await filesOf(folder.join('gen')), committed)
})
