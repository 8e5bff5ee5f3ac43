import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, describe, it } from 'node:test'
import Docker from 'dockerode'
import { curl } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { functionFolder } from '#test/function-folder.ts'
import { productScope, type ProductScope } from '#test/product.ts'

const RECOVERY_MS = 60_000

describe('after a SIGKILL everything comes back without a hand', { timeout: 600_000 }, () => {
  let product: ProductScope

  before(async () => {
    product = await productScope()
    await product.start()
  })
  after(() => product[Symbol.asyncDispose]())

  /** Kills a part and resolves when another process runs in its place. */
  async function killPart(part: string): Promise<void> {
    const old = await product.pid(part)
    process.kill(old, 'SIGKILL')
    await eventually(async () => (await product.pid(part)) !== old, { timeoutMs: RECOVERY_MS })
  }

  async function assertCallsWork(): Promise<void> {
    for (const [fn, data, expected] of [
      ['sieve', '30', /10 primes/],
      ['echo', 'hi', /^hi$/],
      ['hello', 'you', /you/],
    ] as const) {
      await eventually(
        async () => expected.test((await curl(product.url(`/${fn}`), '-d', data)).body),
        { timeoutMs: RECOVERY_MS },
      )
    }
  }

  /** The whole way from the CLI to a handler and back, with a new function each time. */
  async function assertDeployWorks(name: string): Promise<void> {
    await using folder = await functionFolder({
      'index.js': `module.exports = (req, res) => res.send('${name}')`,
    })
    await eventually(
      async () => {
        const ran = await product.shoal('fn', 'deploy', folder.path, '--name', name)
        if (ran.code !== 0) throw new Error(ran.stdout + ran.stderr)
        return true
      },
      { timeoutMs: RECOVERY_MS, everyMs: 500 },
    )
    assert.equal((await curl(product.url(`/${name}`))).body, name)
  }

  it('agent: handlers are adopted, not started again', async () => {
    const earlier = (await product.handlers()).map(({ Id }) => Id).toSorted()
    await killPart('agent')
    await assertCallsWork()
    await eventually(
      async () => {
        const now = (await product.handlers()).map(({ Id }) => Id).toSorted()
        return now.length === earlier.length
      },
      { timeoutMs: RECOVERY_MS },
    )
    const now = (await product.handlers()).map(({ Id }) => Id).toSorted()
    assert.deepEqual(now, earlier)
    await assertDeployWorks('after-agent')
  })

  it('controller: calls go on while it is away', async () => {
    process.kill(await product.pid('controller'), 'SIGKILL')
    assert.equal((await curl(product.url('/echo'), '-d', 'still')).body, 'still')
    await assertCallsWork()
    await assertDeployWorks('after-controller')
  })

  it('nats-server: calls go on while it is away', async () => {
    process.kill(await product.pid('nats'), 'SIGKILL')
    assert.equal((await curl(product.url('/echo'), '-d', 'still')).body, 'still')
    await assertCallsWork()
    await assertDeployWorks('after-nats')
  })

  it('a handler: it is replaced', async () => {
    const docker = new Docker()
    const victim = (await product.handlers()).find(({ fn }) => fn === 'echo')
    assert.ok(victim !== undefined)
    await docker.getContainer(victim.Id).kill({ signal: 'SIGKILL' })
    await assertCallsWork()
  })

  it('the supervisor itself: the next start cleans up and serves the same functions', async () => {
    const run: { supervisor: { pid: number } } = JSON.parse(
      await readFile(`${product.data}/run.json`, 'utf8'),
    )
    process.kill(run.supervisor.pid, 'SIGKILL')
    await product.stop()
    await product.start()
    await assertCallsWork()
    assert.equal((await curl(product.url('/after-agent'))).body, 'after-agent')
  })
})
