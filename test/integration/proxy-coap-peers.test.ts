import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { it } from 'node:test'
import { promisify } from 'node:util'

const SOAK = join(import.meta.dirname, '../bench/coap-soak.ts')

it('200,000 requests of 500 peers, each twentieth twice: all answered, in bounded memory', async (t) => {
  const args = [SOAK, '--requests', '200000', '--peers', '500', '--rss-mib-max', '200']
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const last = stdout.trim().split('\n').at(-1) ?? ''
  t.diagnostic(last)
  assert.equal(JSON.parse(last).answered, 200_000)
})
