import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import { curl } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { functionFolder } from '#test/function-folder.ts'
import { productScope } from '#test/product.ts'

it(
  'a function deployed to sleep is paused, shown so, and answers its next caller; an undo wakes the release before',
  { timeout: 300_000 },
  async () => {
    await using product = await productScope({ SHOAL_SAMPLES: '0', SHOAL_HEARTBEAT_MS: '500' })
    await product.start()
    const deploy = async (text: string, ...args: readonly string[]): Promise<void> => {
      await using folder = await functionFolder({
        'index.js': `module.exports = (req, res) => res.send('${text}')`,
      })
      const ran = await product.shoal('fn', 'deploy', folder.path, '--name', 'nap', ...args)
      assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    }
    const shown = async (): Promise<string> => {
      const nodes = await product.shoal('node', 'ls', '--json')
      const { nodes: list }: { nodes: { id: string }[] } = JSON.parse(nodes.stdout)
      return (await product.shoal('node', 'show', list[0]?.id ?? '')).stdout
    }
    const asked = async <T>(path: string, init: RequestInit = {}): Promise<T> => {
      const token = await readFile(join(product.data, 'controller/api-token'), 'utf8')
      const answer = await fetch(`http://127.0.0.1:${product.ports.api}${path}`, {
        ...init,
        headers: { authorization: `Bearer ${token.trim()}`, 'content-type': 'application/json' },
      })
      const body: T = JSON.parse(await answer.text())
      assert.ok(answer.ok, JSON.stringify(body))
      return body
    }
    const paused = async (count: number): Promise<boolean> => {
      const containers = await product.containers()
      return containers.filter(({ State }) => State === 'paused').length === count
    }

    await deploy('one', '--replicas', '0', '--idle', '1s')
    await eventually(() => paused(1), { timeoutMs: 60_000 })
    await eventually(async () => /^nap +ready .* 0\+0, 1 paused/m.test(await shown()), {
      timeoutMs: 30_000,
    })
    for (let call = 0; call < 3; call++) {
      assert.equal((await curl(product.url('/nap'))).body, 'one')
      await eventually(() => paused(1), { timeoutMs: 60_000 })
    }

    await deploy('two', '--replicas', '1')
    await eventually(async () => (await curl(product.url('/nap'))).body === 'two', {
      timeoutMs: 30_000,
    })
    await eventually(() => paused(1), { timeoutMs: 60_000 })
    const { releases } = await asked<{ releases: { id: string }[] }>('/v1/functions/nap')
    const kept = (await product.containers()).find(({ State }) => State === 'paused')
    const undo = { function: 'nap', release: releases.at(-1)?.id }
    await asked('/v1/rollouts', { method: 'POST', body: JSON.stringify(undo) })
    await eventually(async () => (await curl(product.url('/nap'))).body === 'one', {
      timeoutMs: 30_000,
    })
    const serving = (await product.containers()).find(({ Id }) => Id === kept?.Id)
    assert.equal(serving?.State, 'running', 'resumed, not started')
    await eventually(async () => /^nap +ready/m.test(await shown()), { timeoutMs: 30_000 })
  },
)
