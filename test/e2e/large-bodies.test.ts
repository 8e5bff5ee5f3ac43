import assert from 'node:assert/strict'
import { it } from 'node:test'
import { functionFolder } from '#test/function-folder.ts'
import { productScope } from '#test/product.ts'
import { manyBodies } from '../bench/cost/many-bodies.ts'

const CALLERS = 32
const BYTES = 1_048_576
const ROUNDS_MAX = 6
const FUNCTIONS = {
  'echo-node': { 'index.js': 'module.exports = (req, res) => res.send(req.rawBody)' },
  'echo-python': { 'fn.py': 'def handle(request, context):\n    return request.body\n' },
} as const

it(
  'a function with the standard memory limit serves 32 callers with 1 MiB each, and lives',
  { timeout: 240_000 },
  async () => {
    await using product = await productScope({ SHOAL_SAMPLES: '0' })
    await product.start()
    for (const [name, files] of Object.entries(FUNCTIONS)) {
      await using folder = await functionFolder(files)
      const ran = await product.shoal('fn', 'deploy', folder.path, '--name', name)
      assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    }
    const { http: port } = product.ports
    for (const name of Object.keys(FUNCTIONS)) {
      const load = { port, path: `/${name}`, connections: CALLERS, bytes: BYTES }
      let answers = 0
      // However slow the machine is just now.
      for (let round = 0; round < ROUNDS_MAX && answers <= 2 * CALLERS; round++) {
        const { right, refused, wrong } = await manyBodies({ ...load, durationMs: 5_000 })
        assert.deepEqual({ refused, wrong }, { refused: {}, wrong: [] }, name)
        answers += right
      }
      assert.ok(answers > 2 * CALLERS, `${name}: ${answers} answers`)
    }
  },
)
