import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { it } from 'node:test'

const SOAK = join(import.meta.dirname, '../bench/soak.ts')
const PROTOCOLS = ['http', 'coap', 'grpc'] as const

interface Told {
  readonly passed: boolean
  readonly redeploys: number
  readonly samples: readonly object[]
  readonly answers: { readonly right: Record<string, number>; readonly samples: readonly string[] }
}

it(
  'a short soak: all functions answer over all protocols, with redeploys and crashes',
  { timeout: 240_000 },
  async () => {
    const args = [SOAK, '--minutes', '0.4', '--redeploy-seconds', '5', '--sample-seconds', '5']
    const { code, stdout, stderr } = await run(args)
    assert.equal(code, 0, stderr)
    const { passed, redeploys, samples, answers }: Told = JSON.parse(stdout)
    assert.deepEqual(answers.samples, [])
    assert.ok(passed && redeploys >= 1 && samples.length > 0, stderr)
    for (const protocol of PROTOCOLS) {
      for (const fn of ['echo-node', 'echo-python', 'echo-binary', 'crash', 'live']) {
        assert.ok((answers.right[`${protocol} ${fn}`] ?? 0) > 0, `${protocol} ${fn}`)
      }
    }
    assert.ok((answers.right['http nap'] ?? 0) > 0, 'a function that sleeps')
  },
)

function run(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const options = { maxBuffer: 64 << 20 }
    execFile(process.execPath, [...args], options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr })
    })
  })
}
