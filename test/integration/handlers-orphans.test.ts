import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Runtime } from '#shared/schemas/names.ts'
import { eventually } from '#test/eventually.ts'
import {
  assignmentOf,
  call,
  nodeBed,
  reported,
  startNode,
  type Files,
} from '#test/reconcile-scope.ts'

// `sh` ends before what it has started: whose parent is then the handler's first process.
const SHELL = 'for i in 1 2 3 4 5; do sleep 0.01 & done'

/** Functions that leave five orphans with each POST, and answer with the number of processes that ended and were not reaped. */
const FUNCTIONS: { readonly [K in Runtime]?: Files } = {
  nodejs: {
    'index.mjs': `import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
const state = (pid) => {
  try { return readFileSync('/proc/' + pid + '/stat', 'utf8').split(') ')[1][0] } catch { return '' }
}
export default async (request) => {
  if (await request.text() === 'fork') execFileSync('sh', ['-c', '${SHELL}'], { stdio: 'ignore' })
  return new Response(String(readdirSync('/proc').filter((pid) => state(pid) === 'Z').length))
}`,
  },
  python3: {
    'fn.py': `import glob, subprocess
def state(path):
    try:
        with open(path) as file:
            return file.read().split(') ')[1][0]
    except OSError:
        return ''
def fn(input):
    if input == 'fork':
        subprocess.run('${SHELL}', shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return str(sum(state(path) == 'Z' for path in glob.glob('/proc/[0-9]*/stat')))`,
  },
}

describe('orphans of functions, on engine docker', () => {
  for (const [runtime, files] of Object.entries(FUNCTIONS)) {
    it(`${runtime}: they are reaped, and never use up the handler's processes`, async () => {
      await using bed = await nodeBed('docker')
      await using node = await startNode(bed)
      const forks = await assignmentOf(node.source, 'forks', files, { pids: 40 })
      node.reconciler.setDesired([
        { ...forks, runtime: runtime === 'nodejs' ? runtime : 'python3' },
      ])
      await reported(node, 'forks', 'ready')
      for (let round = 0; round < 20; round += 1) await call(node.router, 'forks', 'fork')
      await eventually(async () => (await call(node.router, 'forks')) === '0')
      assert.equal(node.reconciler.report()[0]?.handlers.restarts, 0)
    })
  }
})
