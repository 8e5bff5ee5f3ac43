import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { curl } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { functionFolder } from '#test/function-folder.ts'
import { productScope, type ProductScope } from '#test/product.ts'

/**
 * Each function does what the body says, and answers `ok` to anything else. `shout` writes more lines than the agent takes at once,
 * 3,900 of this length.
 */
const FUNCTIONS = {
  nodejs: {
    'index.js': `
const { spawn } = require('node:child_process')
module.exports = async (req, res) => {
  switch (req.body) {
    case 'throw': throw new Error('thrown on purpose')
    case 'never': return
    case 'flood': { res.write('x'); for (;;) if (!res.write('x'.repeat(65536))) await new Promise((r) => setImmediate(r)) }
    case 'shout': for (let n = 0; n < 10000; n++) console.log('line ' + n); return res.send('shouted')
    case 'allocate': { const all = []; for (;;) all.push(Buffer.alloc(8 << 20, 1)) }
    case 'fork': for (;;) { spawn('sleep', ['60']).on('error', () => {}); await new Promise((r) => setImmediate(r)) }
    case 'exit': process.exit(3)
    case 'block': for (;;);
  }
  res.send('ok')
}`,
  },
  python3: {
    'fn.py': `
import os, subprocess, sys, time
def fn(input):
    if input == 'throw': raise ValueError('thrown on purpose')
    if input == 'never': time.sleep(3600)
    if input == 'flood': return 'x' * (64 << 20)
    if input == 'shout':
        for n in range(10000): print('line', n)
        return 'shouted'
    if input == 'allocate':
        all = []
        while True: all.append(bytearray(b'1') * (8 << 20))
    if input == 'fork':
        while True:
            try: subprocess.Popen(['sleep', '60'])
            except OSError: time.sleep(0.01)
    if input == 'exit': os._exit(3)
    if input == 'block':
        while True: pass
    return 'ok'
`,
  },
  binary: {
    'fn.sh': `#!/bin/sh
case "$(cat)" in
  throw) echo 'thrown on purpose' >&2; exit 1 ;;
  never) sleep 3600 ;;
  flood) while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done ;;
  shout) n=0; while [ $n -lt 5000 ]; do echo "line $n" >&2; n=$((n + 1)); done; echo -n shouted ;;
  allocate) a=xxxxxxxxxxxxxxxx; while :; do a="$a$a"; done ;;
  fork) while :; do sleep 60 & done ;;
  exit) kill -9 $$ ;;
  block) while :; do :; done ;;
  *) echo -n ok ;;
esac
`,
  },
} as const

/** What the caller may get for each misbehaviour: within its deadline, and one of these. */
const ANSWERS: Readonly<Record<string, readonly number[]>> = {
  throw: [500],
  never: [504],
  // The head may have been sent before the output was found to be too large: then the body breaks off.
  flood: [502, 200, 504],
  shout: [200],
  // The kernel's out-of-memory killer ends the handler (502), or the runtime says no by itself (500).
  allocate: [502, 500, 504],
  fork: [504, 502, 500],
  exit: [502, 500],
  block: [504],
}

const TIMEOUT_S = 10
/** What a busy machine may add. With the default deadline of 30 s in place of this one, answers come later than both together. */
const SLACK_MS = 10_000

describe(
  'functions that misbehave get a defined answer in time, and the next call is served',
  // Each runtime has a handler of its own: its cases wait for deadlines, beside those of the others.
  { timeout: 900_000, concurrency: 3 },
  () => {
    let product: ProductScope

    before(async () => {
      product = await productScope({ SHOAL_SAMPLES: '0' })
      await product.start()
      for (const [runtime, files] of Object.entries(FUNCTIONS)) {
        await using folder = await functionFolder(files)
        const args = ['--name', `bad-${runtime}`, '--timeout', `${TIMEOUT_S}s`, '--memory', '128']
        const ran = await product.shoal('fn', 'deploy', folder.path, ...args)
        assert.equal(ran.code, 0, ran.stdout + ran.stderr)
      }
      await using good = await functionFolder({
        'index.js': `module.exports = (req, res) => res.send('ok')`,
      })
      const ran = await product.shoal('fn', 'deploy', good.path, '--name', 'good')
      assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    })
    after(() => product[Symbol.asyncDispose]())

    for (const runtime of Object.keys(FUNCTIONS)) {
      describe(runtime, { concurrency: 1 }, () => {
        for (const [what, allowed] of Object.entries(ANSWERS)) {
          it(what, async () => {
            const url = product.url(`/bad-${runtime}`)
            await eventually(async () => (await curl(url)).body === 'ok', { timeoutMs: 30_000 })

            const startedAt = performance.now()
            const answer = await curl(url, '-d', what).catch(
              (error: Error & { code?: number; stdout?: string }) => {
                // 18: the body ended early; curl has printed the head.
                assert.equal(error.code, 18, error.message)
                return {
                  status: Number(/^HTTP\/1\.1 (\d+)/.exec(error.stdout ?? '')?.[1]),
                  body: '',
                }
              },
            )
            const tookMs = performance.now() - startedAt

            assert.ok(
              allowed.includes(answer.status),
              `${answer.status} ${answer.body.slice(0, 200)}`,
            )
            assert.ok(
              tookMs < TIMEOUT_S * 1000 + SLACK_MS,
              `answered after ${Math.round(tookMs)} ms`,
            )
            if (what === 'throw') assert.match(answer.body, /thrown on purpose/)
            assert.equal((await curl(product.url('/good'))).body, 'ok', 'others are not touched')
            await eventually(async () => (await curl(url)).body === 'ok', { timeoutMs: 30_000 })
          })
        }
      })
    }
  },
)
