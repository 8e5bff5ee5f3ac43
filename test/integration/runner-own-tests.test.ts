import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { onPath } from '#test/runner-scope.ts'

const runtimes = fileURLToPath(new URL('../../runtimes', import.meta.url))

/** Runs a runner's own tests in their own language. */
function run(program: string, args: readonly string[], folder: string, env = {}): string {
  const cwd = `${runtimes}/${folder}`
  const done = spawnSync(program, args, { cwd, encoding: 'utf8', env: { ...process.env, ...env } })
  assert.equal(done.status, 0, `${done.stdout}\n${done.stderr}`)
  return `${done.stdout}${done.stderr}`
}

describe("the runners' own tests", { timeout: 120_000 }, () => {
  it('python3', () => {
    const output = run('python3', ['-B', '-m', 'unittest'], 'python3')
    assert.match(output, /Ran [1-9]\d* tests/)
  })

  // Where there is no Go on this machine they run in the build of the binary image.
  const go = onPath('go')
  if (go !== undefined) {
    it('binary', () => {
      const env = { CGO_ENABLED: '0', GOFLAGS: '-mod=mod', GOPROXY: 'off' }
      const output = run(go, ['test', '-count=1', '-v', './...'], 'binary', env)
      assert.match(output, /^ok /m)
      // The seeds of what is fuzzed, too.
      assert.match(output, /^--- PASS: FuzzFrames/m)
    })
  }
})
