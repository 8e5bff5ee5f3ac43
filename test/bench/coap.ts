/**
 * What a confirmable call over CoAP costs: the agent's front alone and through lane and frames to an echo function, beside a bare
 * echo of the `coap` package (also with a cache of 64 KiB), of its codec on `node:dgram`, and of `node:dgram` alone, which is what the load generator can measure
 * at most. 100 bytes, 32 in flight from 8 ports; contestants take turns; medians; `xCoap` is the ratio to the `coap` package.
 *
 *   node test/bench/coap.ts [--seconds 3] [--rounds 3] [--only coap,nodejs] [--process] [--against <tree>]
 *
 * `--process` runs the runners without containers; `--against` lets the same contestants of another tree take part.
 */
import { arch, cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { testImages } from '#test/images.ts'
import { type ChildScope, childScope } from '#test/process.ts'
import { loadCoap } from './calls/load-coap.ts'
import type { Round } from './calls/load.ts'
import { cpuMsOf, median, rssMiBOf } from './front-measure.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    only: {
      type: 'string',
      default: 'dgram,coap-packet,coap,coap-small-cache,front,nodejs,python3',
    },
    process: { type: 'boolean', default: false },
    against: { type: 'string' },
  },
})

interface Contestant {
  readonly name: string
  readonly script: string
  readonly args: readonly string[]
  readonly rounds: Round[]
  /** Of the server's process alone, not of the function's. */
  readonly cpuMicros: number[]
  readonly rssMiB: number[]
}

const WARM_UP_MS = 700
const PAYLOAD = Buffer.alloc(100, 'x')
const images = values.process ? undefined : testImages()
const bench = import.meta.dirname
const wanted = values.only.split(',')

function contestant(name: string, script: string, args: readonly string[]): Contestant {
  return { name, script, args, rounds: [], cpuMicros: [], rssMiB: [] }
}

function contestantsOf(folder: string, suffix: string): Contestant[] {
  const through = (['nodejs', 'python3'] as const).map((runtime) => {
    const image = images?.docker?.[runtime]?.run
    return contestant(runtime + suffix, join(folder, 'front-path-server.ts'), [
      runtime,
      ...(image === undefined ? [] : [image]),
    ])
  })
  const front = contestant(`front${suffix}`, join(folder, 'front-server.ts'), ['proxy-coap'])
  return [front, ...through]
}

const contestants = [
  ...['dgram', 'coap-packet', 'coap', 'coap-small-cache'].map((kind) =>
    contestant(kind, join(bench, 'calls/bare.ts'), [kind]),
  ),
  ...contestantsOf(bench, ''),
  ...(values.against === undefined
    ? []
    : contestantsOf(resolve(values.against, 'test/bench'), ' (against)')),
].filter(({ name }) => wanted.includes(name.replace(' (against)', '')))

async function turn({ script, args, rounds, cpuMicros, rssMiB }: Contestant): Promise<void> {
  await using child: ChildScope = await childScope({ script, args })
  const ready: { port: number; coapPort?: number } = JSON.parse(child.readyLine)
  const durationMs = Number(values.seconds) * 1_000
  const load = {
    port: ready.coapPort ?? ready.port,
    path: '/echo',
    payload: PAYLOAD,
    inFlight: 32,
  }
  await loadCoap({ ...load, durationMs: WARM_UP_MS })
  const beforeMs = await cpuMsOf(child)
  const round = await loadCoap({ ...load, durationMs })
  cpuMicros.push(((await cpuMsOf(child)) - beforeMs) / (round.perSecond * (durationMs / 1e6)))
  rssMiB.push(await rssMiBOf(child))
  rounds.push(round)
  await child.kill('SIGTERM')
}

for (let round = 0; round < Number(values.rounds); round++) {
  for (const one of contestants) await turn(one)
}

const perSecondOf = ({ rounds }: Contestant): number => median(rounds.map((r) => r.perSecond))
const bare = contestants.find(({ name }) => name === 'coap')
const results = contestants.map((one) => ({
  name: one.name,
  perSecond: perSecondOf(one),
  xCoap: bare === undefined ? undefined : Number((perSecondOf(one) / perSecondOf(bare)).toFixed(2)),
  perSecondMin: Math.min(...one.rounds.map((round) => round.perSecond)),
  perSecondMax: Math.max(...one.rounds.map((round) => round.perSecond)),
  p50Ms: median(one.rounds.map((round) => round.p50Ms)),
  p99Ms: median(one.rounds.map((round) => round.p99Ms)),
  cpuMicrosPerCall: Number(median(one.cpuMicros).toFixed(1)),
  rssMiB: median(one.rssMiB),
  errors: one.rounds.reduce((sum, { errors }) => sum + errors, 0),
}))
const machine = { node: process.version, arch: arch(), cpu: cpus()[0]?.model, cores: cpus().length }
process.stdout.write(`${JSON.stringify({ machine, results }, undefined, 2)}\n`)
