/**
 * What the gRPC front costs: unary echo of 100 bytes, 8 connections with 4 streams each, beside a bare grpc-js echo server and a bare
 * node:http2 one. Contestants take turns, every server a process of its own; medians. Prints JSON.
 *
 *     node test/bench/grpc.ts [--seconds 3] [--rounds 3] [--bytes 100] [--only <text>] [--against <git ref>]
 *
 * `--against` adds the front of another commit.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { arch, cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type ChildScope, childScope } from '#test/process.ts'
import { median, type Round } from './calls/load.ts'
import { CONNECTIONS, loadGrpc, loadTool, STREAMS } from './grpc/load.ts'
import { requestFrame, type Service } from './grpc/messages.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const SERVER = join(ROOT, 'test/bench/grpc/server.ts')
const BARE = 'bare grpc-js'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    bytes: { type: 'string', default: '100' },
    only: { type: 'string', default: '' },
    against: { type: 'string' },
  },
})

interface Contestant {
  readonly name: string
  readonly service: Service
  /** Arguments of the server. */
  readonly args: readonly string[]
}

interface Measured extends Round {
  readonly rssMiB: number
  readonly cpuMicrosPerCall: number
}

function contestants(tree: string | undefined): Contestant[] {
  const all: Contestant[] = [
    { name: BARE, service: 'shoal', args: ['grpc-js'] },
    { name: 'bare node:http2', service: 'shoal', args: ['http2'] },
    { name: 'front alone, shoal.v1', service: 'shoal', args: ['front'] },
    { name: 'front alone, tinyFaaS', service: 'tinyfaas', args: ['front'] },
    { name: 'front and Node runner, shoal.v1', service: 'shoal', args: ['front-runner'] },
    { name: 'front and Node runner, tinyFaaS', service: 'tinyfaas', args: ['front-runner'] },
  ]
  if (tree !== undefined) {
    const against = String(values.against)
    all.push(
      { name: `${against}: front alone, shoal.v1`, service: 'shoal', args: ['front', tree] },
      {
        name: `${against}: front and Node runner, shoal.v1`,
        service: 'shoal',
        args: ['front-runner', tree],
      },
    )
  }
  return all.filter(({ name }) => name === BARE || name.includes(values.only))
}

/** A checkout of the ref beside this one, with this one's packages. */
function checkOut(ref: string): Disposable & { readonly tree: string } {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-bench-'))
  const tree = join(folder, 'tree')
  const git = (...args: readonly string[]): void => {
    execFileSync('git', ['-C', ROOT, ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
  }
  git('worktree', 'add', '--detach', tree, ref)
  symlinkSync(join(ROOT, 'node_modules'), join(tree, 'node_modules'))
  return {
    tree,
    [Symbol.dispose]() {
      git('worktree', 'remove', '--force', tree)
      rmSync(folder, { recursive: true })
    },
  }
}

async function measure({ service, args }: Contestant): Promise<Measured> {
  const child = await childScope({ script: SERVER, args })
  try {
    const { port }: { port: number } = JSON.parse(child.readyLine)
    const frame = requestFrame(service, Number(values.bytes))
    const load = { port, service, frame }
    await loadGrpc({ ...load, seconds: 1 })
    const beforeMs = cpuMsOf(child)
    const seconds = Number(values.seconds)
    const round = await loadGrpc({ ...load, seconds })
    const cpuMicros = (cpuMsOf(child) - beforeMs) * 1_000
    const cpuMicrosPerCall = cpuMicros / (round.perSecond * seconds)
    return { ...round, rssMiB: rssMiBOf(child), cpuMicrosPerCall }
  } finally {
    // By its own hand, so that it ends its runner.
    await child.kill('SIGTERM')
  }
}

function rssMiBOf({ pid }: ChildScope): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
}

/** Processor time so far, without the runner's: steadier than calls per second on a machine that others use too. */
function cpuMsOf({ pid }: ChildScope): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10 // In ticks of 1/100 s.
}

using against = values.against === undefined ? undefined : checkOut(values.against)
const runs = contestants(against?.tree).map((contestant) => ({
  contestant,
  rounds: Array.of<Measured>(),
}))
for (let round = 0; round < Number(values.rounds); round++) {
  for (const { contestant, rounds } of runs) rounds.push(await measure(contestant))
}
const middle = (rounds: readonly Measured[], key: keyof Measured): number =>
  Number(median(rounds.map((one) => one[key])).toFixed(3))
const barePerSecond = middle(runs[0]?.rounds ?? [], 'perSecond')
const results = runs.map(({ contestant, rounds }) => ({
  name: contestant.name,
  perSecond: middle(rounds, 'perSecond'),
  perSecondMin: Math.min(...rounds.map(({ perSecond }) => perSecond)),
  perSecondMax: Math.max(...rounds.map(({ perSecond }) => perSecond)),
  timesBare: Number((middle(rounds, 'perSecond') / barePerSecond).toFixed(2)),
  p50Ms: middle(rounds, 'p50Ms'),
  p99Ms: middle(rounds, 'p99Ms'),
  cpuMicrosPerCall: Number(middle(rounds, 'cpuMicrosPerCall').toFixed(1)),
  rssMiB: middle(rounds, 'rssMiB'),
  errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
}))
const machine = { node: process.version, arch: arch(), cpu: cpus()[0]?.model, cores: cpus().length }
const load = { tool: loadTool, connections: CONNECTIONS, streamsEach: STREAMS, ...values }
process.stdout.write(`${JSON.stringify({ machine, load, results }, undefined, 2)}\n`)
