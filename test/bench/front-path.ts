/**
 * What a call over HTTP costs: the agent's front, lane and frames before an echo function in a container, beside a bare
 * `node:http` echo, at several numbers of connections and sizes of body. Contestants take turns; medians; `x bare` is the ratio
 * to look at. Needs wrk and the runtime images.
 *
 *   node test/bench/front-path.ts [--seconds 3] [--rounds 3] [--connections 1,32,256] [--bytes 100] [--process] [--against <tree>]
 *
 * `--process` runs the runners without containers; `--against` lets the same server of another tree take part.
 */
import { arch, cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { testImages } from '#test/images.ts'
import { type ChildScope, childScope } from '#test/process.ts'
import { cpuMsOf, median, rssMiBOf, wrkLoad } from './front-measure.ts'
import type { Load } from './front-load.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    connections: { type: 'string', default: '1,32,256' },
    bytes: { type: 'string', default: '100' },
    only: { type: 'string', default: 'nodejs,python3' },
    process: { type: 'boolean', default: false },
    against: { type: 'string' },
  },
})

interface Contestant {
  readonly name: string
  readonly child: ChildScope
  readonly port: number
}

interface Turn extends Load {
  readonly cpuMicrosPerCall: number
}

async function start(tree: string, name: string, script: string, args: string[]) {
  const child = await childScope({ script: join(tree, 'test/bench', script), args, cwd: tree })
  const { port }: { port: number } = JSON.parse(child.readyLine)
  return { name, child, port }
}

async function contestants(): Promise<Contestant[]> {
  const here = resolve(import.meta.dirname, '../..')
  const found = [await start(here, 'bare', 'front-server.ts', ['bare-http'])]
  for (const runtime of values.only.split(',')) {
    if (runtime !== 'nodejs' && runtime !== 'python3') throw new RangeError(`no ${runtime} here`)
    const image = values.process ? undefined : testImages().docker?.[runtime]?.run
    const args = image === undefined ? [runtime] : [runtime, image]
    found.push(await start(here, runtime, 'front-path-server.ts', args))
    if (values.against === undefined) continue
    const tree = resolve(values.against)
    found.push(await start(tree, `${runtime} (other tree)`, 'front-path-server.ts', args))
  }
  return found
}

async function turn(one: Contestant, connections: number, bytes: number): Promise<Turn> {
  const seconds = Number(values.seconds)
  const url = `http://127.0.0.1:${one.port}/echo`
  const beforeMs = await cpuMsOf(one.child)
  const load = await wrkLoad(url, { seconds, connections, bytes })
  const cpuMs = (await cpuMsOf(one.child)) - beforeMs
  return { ...load, cpuMicrosPerCall: (cpuMs * 1_000) / (load.callsPerSecond * seconds) }
}

function summary(name: string, turns: readonly Turn[], bare: number, rssMiB: number) {
  const rates = turns.map((one) => one.callsPerSecond)
  return {
    name,
    timesBare: Number((median(rates) / bare).toFixed(3)),
    callsPerSecond: Math.round(median(rates)),
    callsPerSecondMin: Math.round(Math.min(...rates)),
    callsPerSecondMax: Math.round(Math.max(...rates)),
    p50Ms: Number(median(turns.map((one) => one.p50Ms)).toFixed(3)),
    p99Ms: Number(median(turns.map((one) => one.p99Ms)).toFixed(3)),
    failed: turns.reduce((sum, one) => sum + one.failed, 0),
    cpuMicrosPerCall: Number(median(turns.map((one) => one.cpuMicrosPerCall)).toFixed(1)),
    rssMiB,
  }
}

await using stack = new AsyncDisposableStack()
const all = await contestants()
for (const { child } of all) {
  stack.defer(async () => {
    await child.kill('SIGTERM')
  })
}
const results = []
for (const bytes of values.bytes.split(',').map(Number)) {
  for (const connections of values.connections.split(',').map(Number)) {
    const turns = all.map((one) => ({ one, found: [] as Turn[] }))
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const { one, found } of turns) found.push(await turn(one, connections, bytes))
    }
    const bare = median((turns[0]?.found ?? []).map((load) => load.callsPerSecond))
    for (const { one, found } of turns) {
      const row = summary(one.name, found, bare, await rssMiBOf(one.child))
      results.push({ bytes, connections, ...row })
    }
  }
}
const machine = { node: process.version, arch: arch(), cpu: cpus()[0]?.model, cores: cpus().length }
process.stdout.write(`${JSON.stringify({ machine, results }, undefined, 2)}\n`)
