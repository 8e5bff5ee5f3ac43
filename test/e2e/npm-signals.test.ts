import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { eventually } from '#test/eventually.ts'
import { childScope } from '#test/process.ts'
import { hasEnded } from '#test/process-facts.ts'
import { productScope } from '#test/product.ts'

const ROOT = join(import.meta.dirname, '../..')
/** As a supervisor that is itself a background job leaves it: npm hears SIGINT, a shell below it would not. */
const IGNORING_SIGINT = "trap '' INT; exec npm start"

it('a signal to npm alone stops everything that npm start has started', async () => {
  await using product = await productScope({ SHOAL_SAMPLES: '0' })
  for (const signal of ['SIGINT', 'SIGHUP'] as const) {
    await using npm = await childScope({
      command: 'sh',
      args: ['-c', IGNORING_SIGINT],
      env: product.env,
      cwd: ROOT,
      ready: (line) => line.startsWith('ready in '),
      readyTimeoutMs: 120_000,
    })
    const pids = await Promise.all(['nats', 'controller', 'agent'].map((part) => product.pid(part)))
    process.kill(npm.pid, signal)
    const gone = () => !existsSync(join(product.data, 'run.json'))
    assert.ok(await eventually(gone, { timeoutMs: 30_000 }), signal)
    for (const pid of pids) assert.ok(hasEnded(pid), npm.output())
  }
})
