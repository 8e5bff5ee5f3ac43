/**
 * `npm run bench`: the whole set, contestants in alternation, in one run of at most a quarter of an hour on two cores. Writes
 * test/bench/results/bench.json, a chart for each question, and README's tables.
 *
 *     npm run bench [-- --only calls,starts] [--rounds 3] [--seconds 3] [--against <git ref>]
 *
 * With `--only` or `--against` nothing is written: the results go to stdout as JSON. Another commit takes part in the suites that call
 * whole products: calls, isolation and deploys, and with `--against` only these run.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { httpTool } from './calls/load-http.ts'
import { loadTool as grpcTool } from './grpc/load.ts'
import type { Plan, Question, Results, Suite } from './harness/model.ts'
import { Options } from './harness/options.ts'
import { ownTemp } from './harness/own-temp.ts'
import { checkOut } from './harness/other-tree.ts'
import { render } from './harness/render.ts'
import { machineTicks } from '#deploy/starvation.ts'
import { calls } from './suites/calls.ts'
import { cost } from './suites/cost.ts'
import { deploys } from './suites/deploys.ts'
import { isolation } from './suites/isolation.ts'
import { overload } from './suites/overload.ts'
import { spawns } from './suites/spawns.ts'
import { starts } from './suites/starts.ts'

const SUITES: Readonly<Record<string, Suite>> = {
  calls,
  spawns,
  starts,
  isolation,
  deploys,
  overload,
  cost,
}
/** Those in which another commit takes part. */
const COMPARING: readonly string[] = ['calls', 'isolation', 'deploys']
const RESULTS = join(import.meta.dirname, 'results/bench.json')

const USAGE = `npm run bench [-- OPTIONS]

  --only SUITES      some of ${Object.keys(SUITES).join(', ')}; default: all
  --rounds N         turns of each contestant, default 3
  --seconds N        of one turn, default 3
  --against GIT_REF  let another commit take part in ${COMPARING.join(', ')}

With --only or --against the results go to standard output as JSON, and nothing is written.`

const options = new Options(USAGE, {
  only: { type: 'string' },
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  against: { type: 'string' },
})
const { values } = options
const choice = values.against === undefined ? Object.keys(SUITES) : COMPARING
const names = values.only?.split(',') ?? choice
const unknown = names.filter((name) => !choice.includes(name))
if (unknown.length > 0) {
  const where = values.against === undefined ? '' : ' with --against'
  options.fail(`no such suite${where}: ${unknown.join(', ')}; there are ${choice.join(', ')}`)
}
const rounds = options.count('rounds', values.rounds)
const secondsPerRound = options.count('seconds', values.seconds)
ownTemp()

using against = values.against === undefined ? undefined : checkOut(values.against)
const plan: Plan = {
  rounds,
  secondsPerRound,
  against,
  say: (text) => process.stderr.write(`${text}\n`),
}
plan.say(
  `load generators: ${httpTool}, ${grpcTool}; wrk and h2load leave more of the cores to the contestants`,
)
const startedAtMs = performance.now()
const machine = machineFacts()
const ticksBefore = machineTicks()
const questions: Question[] = []
for (const name of names) {
  plan.say(`-- ${name}, ${Math.round((performance.now() - startedAtMs) / 1_000)} s after the start`)
  questions.push(...((await SUITES[name]?.(plan)) ?? []))
}
const minutes = Math.round((performance.now() - startedAtMs) / 60_000)
const ticks = machineTicks()
const stolenPercent = Math.round(
  (100 * (ticks.stolen - ticksBefore.stolen)) / (ticks.all - ticksBefore.all),
)
const results: Results = {
  command: 'npm run bench',
  machine: { ...machine, minutes, stolenPercent },
  questions,
}
const json = `${JSON.stringify(results, undefined, 2)}\n`
if (values.only === undefined && against === undefined) {
  await mkdir(dirname(RESULTS), { recursive: true })
  await writeFile(RESULTS, json)
  await render(results)
} else {
  process.stdout.write(json)
}

function machineFacts(): Results['machine'] {
  const [cpu] = cpus()
  return {
    cores: cpus().length,
    cpu: cpu?.model ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    // Other work on the machine: ratios stand it, absolute figures do not.
    load: Number((loadavg()[0] ?? 0).toFixed(1)),
    node: process.version,
    arch: process.arch,
    httpLoad: httpTool,
    grpcLoad: grpcTool,
    rounds: plan.rounds,
    secondsPerRound: plan.secondsPerRound,
    date: new Date().toISOString().slice(0, 10),
  }
}
