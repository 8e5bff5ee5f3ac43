import { arch, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { buildRelease } from '#deploy/bundle/index.ts'
import { tempFolder } from '#test/temp.ts'
import { measureLimited, measureMemory, measureStarts } from './cost/measure.ts'
import { NodeUnderTest, SOURCE } from '#test/node-under-test.ts'

/**
 * What an agent costs that runs functions and is not called: time to start, memory, processor time when idle; and whether it lives
 * through load inside a memory limit. From the bundle, outside of the checkout, with real handlers. Prints JSON on stdout.
 *
 *   node test/bench/cost.ts [--only start,memory,limit] [--functions 20] [--engine docker|process] [--rounds 5]
 *                           [--load-seconds 5] [--idle-seconds 60] [--limit-mib 96]
 */
const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'start,memory,limit' },
    functions: { type: 'string', default: '20' },
    engine: { type: 'string', default: 'docker' },
    rounds: { type: 'string', default: '5' },
    'load-seconds': { type: 'string', default: '5' },
    'idle-seconds': { type: 'string', default: '60' },
    'limit-mib': { type: 'string', default: '96' },
  },
})
const parts = values.only.split(',')
const loadMs = Number(values['load-seconds']) * 1000
const idleMs = Number(values['idle-seconds']) * 1000
const rounds = Number(values.rounds)

await using folder = await tempFolder()
await buildRelease({ folder: folder.path })
const released = [join(folder.path, 'shoal-agent')]
await using node = await NodeUnderTest.create(
  {
    engine: values.engine === 'process' ? 'process' : 'docker',
    functions: Number(values.functions),
  },
  released,
)

const results: Record<string, unknown> = {
  machine: { cores: cpus().length, cpu: cpus()[0]?.model, arch: arch(), node: process.version },
  functions: node.functions.length,
  engine: values.engine,
}
if (parts.includes('start')) {
  results['startMs'] = {
    bundle: await measureStarts(node, released, rounds),
    source: await measureStarts(node, SOURCE, rounds),
  }
}
if (parts.includes('memory')) {
  results['memory'] = await measureMemory(node, released, { loadMs, idleMs })
}
if (parts.includes('limit')) {
  const limitMiB = Number(values['limit-mib'])
  results['limited'] = await measureLimited(node, released, { limitMiB, loadMs })
}
process.stdout.write(`${JSON.stringify(results, undefined, 2)}\n`)
