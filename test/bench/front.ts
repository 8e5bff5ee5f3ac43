/**
 * What each proxy costs by itself: calls per second of HTTP, CoAP and gRPC before an echo in the same process, beside a bare
 * server of the same protocol. 100 bytes, 32 in flight; every server a process of its own; contestants take turns; medians.
 *
 *   node test/bench/front.ts [--seconds 3] [--rounds 3] [--only http,coap,grpc]
 */
import { spawnSync } from 'node:child_process'
import { arch, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import autocannon from 'autocannon'
import { childScope } from '#test/process.ts'
import { coapLoad, type Load, grpcLoad } from './front-load.ts'
import { cpuMsOf, median, rssMiBOf, wrkLoad } from './front-measure.ts'

const SERVER = new URL('front-server.ts', import.meta.url).pathname
const BODY = Buffer.alloc(100, 'x')

interface Contestant {
  readonly protocol: 'http' | 'coap' | 'grpc'
  /** What `front-server.ts` shall run. */
  readonly server: string
  readonly service?: string
  readonly run: (port: number, ms: number) => Promise<Load>
}

const contestants: readonly Contestant[] = [
  { protocol: 'http', server: 'bare-http', run: httpLoad },
  { protocol: 'http', server: 'proxy-http', run: httpLoad },
  { protocol: 'coap', server: 'bare-coap', run: coapLoad },
  { protocol: 'coap', server: 'proxy-coap', run: coapLoad },
  ...(['bare-grpc', 'proxy-grpc'] as const).map((server) => grpcContestant(server, 'tinyfaas')),
  grpcContestant('proxy-grpc', 'shoal'),
]

function grpcContestant(server: string, service: 'tinyfaas' | 'shoal'): Contestant {
  return { protocol: 'grpc', server, service, run: (port, ms) => grpcLoad(port, ms, service) }
}

const hasWrk = spawnSync('wrk', ['-v']).error === undefined

async function httpLoad(port: number, ms: number): Promise<Load> {
  const url = `http://127.0.0.1:${port}/echo`
  if (hasWrk) return wrkLoad(url, { seconds: ms / 1000, connections: 32, bytes: BODY.length })
  const result = await autocannon({
    url,
    method: 'POST',
    body: BODY,
    connections: 32,
    duration: ms / 1000,
  })
  const { requests, latency, non2xx, errors } = result
  return {
    callsPerSecond: requests.average,
    p50Ms: latency.p50,
    p99Ms: latency.p99,
    failed: non2xx + errors,
  }
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: 'http,coap,grpc' },
  },
})
const ms = Number(values.seconds) * 1000
const wanted = contestants.filter(({ protocol }) => values.only.split(',').includes(protocol))
interface Run {
  readonly contestant: Contestant
  readonly loads: Load[]
  readonly rssMiB: number[]
  readonly cpuMicros: number[]
}
const runs = wanted.map((contestant): Run => ({ contestant, loads: [], rssMiB: [], cpuMicros: [] }))
for (let round = 0; round < Number(values.rounds); round++) {
  for (const { contestant, loads, rssMiB, cpuMicros } of runs) {
    await using child = await childScope({ script: SERVER, args: [contestant.server] })
    const { port }: { port: number } = JSON.parse(child.readyLine)
    await contestant.run(port, Math.min(1000, ms))
    const beforeMs = await cpuMsOf(child)
    const load = await contestant.run(port, ms)
    loads.push(load)
    cpuMicros.push(((await cpuMsOf(child)) - beforeMs) / (load.callsPerSecond * (ms / 1_000_000)))
    rssMiB.push(await rssMiBOf(child))
  }
}
const results = runs.map(({ contestant, loads, rssMiB, cpuMicros }) => ({
  protocol: contestant.protocol,
  server: contestant.server,
  service: contestant.service,
  callsPerSecond: Math.round(median(loads.map((load) => load.callsPerSecond))),
  callsPerSecondMin: Math.round(Math.min(...loads.map((load) => load.callsPerSecond))),
  callsPerSecondMax: Math.round(Math.max(...loads.map((load) => load.callsPerSecond))),
  p50Ms: Number(median(loads.map((load) => load.p50Ms)).toFixed(3)),
  p99Ms: Number(median(loads.map((load) => load.p99Ms)).toFixed(3)),
  failed: loads.reduce((sum, load) => sum + load.failed, 0),
  cpuMicrosPerCall: Number(median(cpuMicros).toFixed(1)),
  rssMiB: median(rssMiB),
}))
const machine = { node: process.version, arch: arch(), cpu: cpus()[0]?.model, cores: cpus().length }
const httpLoadBy = hasWrk ? 'wrk' : 'autocannon'
process.stdout.write(`${JSON.stringify({ machine, httpLoadBy, results }, undefined, 2)}\n`)
