import assert from 'node:assert/strict'
import { it } from 'node:test'
import { functionFolder } from '#test/function-folder.ts'
import { eventually } from '#test/eventually.ts'
import { httpLoad } from '#test/http-load.ts'
import { productScope } from '#test/product.ts'

const CALLS_MIN = 20_000
const RELEASES = 5

/** The same function in three languages; what it answers names its version. */
const SOURCES = {
  nodejs: (version: number) => ({
    'index.js': `module.exports = (req, res) => res.send('v${version}')`,
  }),
  python3: (version: number) => ({ 'fn.py': `def fn(input):\n    return 'v${version}'\n` }),
  binary: (version: number) => ({ 'fn.sh': `#!/bin/sh\necho -n v${version}\n` }),
} as const

for (const runtime of ['nodejs', 'python3', 'binary'] as const) {
  it(
    `${runtime}: redeploying under continuous load loses no call`,
    { timeout: 600_000 },
    async () => {
      await using product = await productScope({ SHOAL_SAMPLES: '0' })
      await product.start()
      const deploy = async (version: number) => {
        await using folder = await functionFolder(SOURCES[runtime](version))
        const ran = await product.shoal(
          'fn',
          'deploy',
          folder.path,
          '--name',
          'live',
          '--replicas',
          '2',
        )
        assert.equal(ran.code, 0, ran.stdout + ran.stderr)
      }
      await deploy(1)

      const load = httpLoad(product.url('/live'), 16)
      for (let version = 2; version <= RELEASES; version++) {
        const before = load.report.calls
        await deploy(version)
        await eventually(() => load.report.calls > before + CALLS_MIN / (RELEASES - 1), {
          timeoutMs: 120_000,
        })
      }
      const report = await load.stop()

      assert.deepEqual(report.failures, [])
      assert.ok(report.calls >= CALLS_MIN, `${report.calls} calls`)
      const seen = [...report.bodies.keys()].toSorted()
      assert.deepEqual(
        seen,
        Array.from({ length: RELEASES }, (_, n) => `v${n + 1}`),
        'every release has answered, and nothing else',
      )
    },
  )
}
