/**
 * What `SHOAL_WORKERS` moves out of the agent's own process: processor time per call of the agent, of its workers and of the function, with
 * the fronts inside and with workers. Contestants take turns; medians. Prints JSON. Needs wrk; `--pin` needs taskset and two cores: the
 * agent has the first to itself, everything else the second.
 *
 *   node test/bench/workers.ts [--seconds 3] [--rounds 3] [--workers 1,2] [--only http] [--pin]
 */
import { execFileSync } from 'node:child_process'
import { arch, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { FrontPorts } from '#agent/fronts/index.ts'
import { childScope, type ChildScope } from '#test/process.ts'
import { cpuMsOf, memoryOf } from '#test/process-facts.ts'
import { loadCoap } from './calls/load-coap.ts'
import { median, wrkLoad } from './front-measure.ts'
import { loadGrpc } from './grpc/load.ts'
import { requestFrame } from './grpc/messages.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    workers: { type: 'string', default: '1,2' },
    only: { type: 'string', default: '' },
    pin: { type: 'boolean', default: false },
  },
})
const seconds = Number(values.seconds)
const WARM_UP_S = 1

interface Ready {
  readonly ports: FrontPorts
  readonly pids: readonly number[]
  readonly runner: number
}

interface Turn {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly agentMicros: number
  readonly workersMicros: number
  readonly functionMicros: number
  readonly rssMiB: number
}

type Load = (
  ports: FrontPorts,
  forSeconds: number,
) => Promise<Omit<Turn, `${string}Micros` | 'rssMiB'>>

function http(connections: number, bytes: number): Load {
  return async (ports, forSeconds) => {
    const url = `http://127.0.0.1:${ports.http}/echo`
    const load = await wrkLoad(url, { seconds: forSeconds, connections, bytes })
    return { ...load, perSecond: load.callsPerSecond }
  }
}

const LOADS: Readonly<Record<string, Load>> = {
  'http, 100 bytes, 1 connection': http(1, 100),
  'http, 100 bytes, 32 connections': http(32, 100),
  'http, 100 bytes, 256 connections': http(256, 100),
  'http, 64 KiB, 8 connections': http(8, 64 * 1024),
  'http, 1 MiB, 4 connections': http(4, 1024 * 1024),
  'coap, 100 bytes, 32 in flight from 8 ports': ({ coap: port }, forSeconds) => {
    const payload = Buffer.alloc(100, 'x')
    return loadCoap({ port, path: '/echo', payload, inFlight: 32, durationMs: forSeconds * 1_000 })
  },
  'grpc, 100 bytes, 8 connections with 4 streams': ({ grpc: port }, forSeconds) =>
    loadGrpc({ port, service: 'shoal', frame: requestFrame('shoal', 100), seconds: forSeconds }),
}

async function turn(child: ChildScope, load: Load): Promise<Turn> {
  const { ports, pids, runner }: Ready = JSON.parse(child.readyLine)
  await load(ports, WARM_UP_S)
  const used = () => [[child.pid], pids, [runner]].map((group) => sum(group.map(cpuMsOf)))
  const before = used()
  const { perSecond, p50Ms, p99Ms } = await load(ports, seconds)
  const micros = used().map((ms, at) => ((ms - (before[at] ?? 0)) * 1_000) / (perSecond * seconds))
  const [agentMicros = 0, workersMicros = 0, functionMicros = 0] = micros
  const rssMiB = sum([child.pid, ...pids].map((pid) => memoryOf(pid).rssMiB))
  return { perSecond, p50Ms, p99Ms, agentMicros, workersMicros, functionMicros, rssMiB }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0)
}

function pin(child: ChildScope): void {
  const { pids, runner }: Ready = JSON.parse(child.readyLine)
  putOn('0', [child.pid])
  putOn('1', [...pids, runner, process.pid])
}

function putOn(core: string, pids: readonly number[]): void {
  for (const pid of pids) {
    execFileSync('taskset', ['-acp', core, String(pid)], { stdio: 'ignore' })
  }
}

const found = new Map<string, Turn[]>()
for (let round = 0; round < Number(values.rounds); round++) {
  for (const workers of values.workers.split(',')) {
    const script = join(import.meta.dirname, 'workers-server.ts')
    await using child = await childScope({ script, args: [workers] })
    if (values.pin) pin(child)
    for (const [name, load] of Object.entries(LOADS)) {
      if (!name.startsWith(values.only)) continue
      const key = `${name}; workers: ${workers}`
      found.set(key, [...(found.get(key) ?? []), await turn(child, load)])
    }
    await child.kill('SIGTERM')
  }
}
const results = [...found].map(([name, turns]) => {
  const middle = (key: keyof Turn) => Number(median(turns.map((one) => one[key])).toFixed(2))
  return {
    name,
    perSecond: Math.round(middle('perSecond')),
    p50Ms: middle('p50Ms'),
    p99Ms: middle('p99Ms'),
    agentMicrosPerCall: middle('agentMicros'),
    workersMicrosPerCall: middle('workersMicros'),
    functionMicrosPerCall: middle('functionMicros'),
    rssMiB: middle('rssMiB'),
  }
})
const machine = { node: process.version, arch: arch(), cpu: cpus()[0]?.model, cores: cpus().length }
process.stdout.write(`${JSON.stringify({ machine, ...values, results }, undefined, 2)}\n`)
