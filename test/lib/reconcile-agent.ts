/**
 * A part of an agent as a program, to be killed at any moment: reconciles to what `desired.json` in its folder says, and
 * prints the reports that are new. Run as `node reconcile-agent.ts <engine> <folder> <installation>`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Assignment } from '#shared/schemas/command.ts'
import { startNode } from './reconcile-scope.ts'

const parent = process.ppid
const [kind, folder = '', installation = ''] = process.argv.slice(2)
if (kind !== 'docker' && kind !== 'process') throw new TypeError('engine: docker or process')
const node = await startNode({ kind, folder, installation }, { spares: 2 })

let wanted = ''
let reported = ''
// Also when the test that started it is killed itself.
while (process.ppid === parent) {
  const text = readFileSync(join(folder, 'desired.json'), 'utf8')
  if (text !== wanted) {
    const assignments: Assignment[] = JSON.parse(text)
    node.reconciler.setDesired(assignments)
    wanted = text
  }
  const report = JSON.stringify({
    msg: node.reconciler.report().every(({ state }) => state === 'ready') ? 'ready' : 'busy',
    functions: node.reconciler.report().map(({ fn, release, state }) => ({ fn, release, state })),
  })
  if (report !== reported) process.stdout.write(`${report}\n`)
  reported = report
  await sleep(10)
}
await node.close(true)
