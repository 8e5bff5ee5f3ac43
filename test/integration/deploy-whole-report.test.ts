import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { tempFolder } from '#test/temp.ts'

const WHOLE_REPORT = join(import.meta.dirname, '../lib/whole-report.ts')
const TESTS = 2_000

test('a file of tests reports each of them, though the runner is too busy to read', async () => {
  await using folder = await tempFolder()
  const file = folder.join('many.test.mjs')
  const source = `import { test } from 'node:test'
    for (let n = 0; n < ${TESTS}; n++) test('number ' + n, () => {})`
  await writeFile(file, source)
  const child = spawn(process.execPath, ['--test-force-exit', `--import=${WHOLE_REPORT}`, file], {
    env: { ...process.env, NODE_TEST_CONTEXT: 'child-v8' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let report = ''
  for await (const chunk of child.stdout.setEncoding('latin1')) {
    report += chunk
    await sleep(50)
  }
  assert.equal(report.match(/test:pass/g)?.length, TESTS)
})
