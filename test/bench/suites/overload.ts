import { productScope, type ProductScope } from '#test/product.ts'
import { cpuMsOf, memoryOf } from '#test/process-facts.ts'
import { loadHttp } from '../calls/load-http.ts'
import { median, spread } from '../harness/alternate.ts'
import type { Plan, Question, Row } from '../harness/model.ts'
import { overloadLoad } from '../overload/overload-load.ts'
import type { OverloadPlan, OverloadReport, Protocol, Times } from '../overload/report.ts'
import { deploy } from './echo-products.ts'

const SERVICE_MS = 20
const CONCURRENCY = 8
/** Calls per second that the function can serve; timers are late rather than early, so its true peak is a little below. */
const CAPACITY = (CONCURRENCY * 1_000) / SERVICE_MS
const DEADLINE_MS = 500
const PROBES = 50
const QUIET_MS = 15
const QUIET_CALLS = 100
const FLOOD_CONNECTIONS = 64
const GIVE_UP_MS = 30_000

const takes = (ms: number): string =>
  `module.exports = (req, res) => setTimeout(() => res.send('ok'), ${ms})`
const FUNCTIONS = [
  [
    'known',
    takes(SERVICE_MS),
    ['--concurrency', String(CONCURRENCY), '--timeout', `${DEADLINE_MS}ms`],
  ],
  ['quiet', takes(QUIET_MS), []],
  ['flooded', 'module.exports = (req, res) => res.send(req.rawBody)', []],
  ['hangs', 'module.exports = () => {}', ['--concurrency', '1024', '--timeout', '5s']],
  ['crashes', 'module.exports = () => process.exit(1)', []],
] as const

/** Rounds with everything in turn; the least and the most stand beside the median. */
interface Found {
  readonly peak: OverloadReport[]
  readonly over: OverloadReport[]
  readonly loopLagMs: number[]
  readonly cpuMs: number[]
  readonly memoryMiB: Record<'before' | 'after', number[]>
  readonly quiet: Map<string, Times[]>
}

/** What is left of a node that gets three times what a function can serve, and of a function beside one that misbehaves. */
export async function overload(plan: Plan): Promise<Question[]> {
  await using product = await productScope({ SHOAL_SAMPLES: '0' })
  await product.start()
  for (const [name, source, settings] of FUNCTIONS) {
    await deploy(product, name, { 'index.js': source }, settings)
  }
  const pid = await product.pid('agent')
  const found: Found = {
    peak: [],
    over: [],
    loopLagMs: [],
    cpuMs: [],
    memoryMiB: { before: [], after: [] },
    quiet: new Map(),
  }
  const load = (more: Partial<OverloadPlan>): Promise<OverloadReport> =>
    overloadLoad({
      ...product.ports,
      fn: 'known',
      deadlineMs: DEADLINE_MS,
      durationMs: 500,
      ...more,
    })
  await load({ perSecond: 3 * CAPACITY, probesPerSecond: PROBES })
  for (let round = 0; round < overloadRounds(plan); round++) {
    await overloadRound(plan, product, pid, load, found)
    if (round < plan.rounds) await fairnessRound(plan, product, found)
  }
  return [goodput(found), refusals(found), memory(found), fairness(found)]
}

/** More of them: the slowest two refusals of a round, which the machine may have made so, are what it says of gRPC and CoAP. */
const overloadRounds = ({ rounds }: Plan): number => 2 * rounds - 1

type Load = (more: Partial<OverloadPlan>) => Promise<OverloadReport>

async function overloadRound(
  { secondsPerRound, say }: Plan,
  product: ProductScope,
  pid: number,
  load: Load,
  found: Found,
): Promise<void> {
  const durationMs = secondsPerRound * 1_000
  found.peak.push(await load({ durationMs, closedLoop: 2 * CONCURRENCY }))
  found.memoryMiB.before.push(memoryOf(pid).rssMiB)
  const cpuBeforeMs = cpuMsOf(pid)
  const over = await load({ durationMs, perSecond: 3 * CAPACITY, probesPerSecond: PROBES })
  found.over.push(over)
  found.cpuMs.push((cpuMsOf(pid) - cpuBeforeMs) / callsOf(over))
  found.memoryMiB.after.push(memoryOf(pid).rssMiB)
  found.loopLagMs.push(await loopLagMs(product))
  const { http, grpc, coap } = over.outcomes
  const refused = [http, grpc, coap].map((one) => one.refused.p99Ms).join(', ')
  const callers = `callers ${over.lagP99Ms} ms late, ${over.cpuShare} of a core`
  say(`3x: ${http.answered.count} answered, refused within ${refused} ms (p99); ${callers}`)
}

async function fairnessRound(plan: Plan, product: ProductScope, found: Found): Promise<void> {
  const { http } = product.ports
  const durationMs = plan.secondsPerRound * 1_000
  const floodMs = durationMs + 1_000
  const calls = { ...product.ports, deadlineMs: 5_000, durationMs: floodMs }
  const neighbours: Readonly<Record<string, () => Promise<unknown>>> = {
    alone: async () => undefined,
    'beside one that is flooded': () =>
      loadHttp({
        port: http,
        path: '/flooded',
        payload: Buffer.from('x'),
        inFlight: FLOOD_CONNECTIONS,
        durationMs: floodMs,
      }),
    'beside one that hangs': () =>
      overloadLoad({ ...calls, fn: 'hangs', deadlineMs: floodMs, perSecond: 500 }),
    'beside one that crashes': () => overloadLoad({ ...calls, fn: 'crashes', perSecond: 50 }),
  }
  for (const [name, abuse] of Object.entries(neighbours)) {
    const quiet = { ...calls, fn: 'quiet', durationMs, perSecond: QUIET_CALLS }
    const [{ outcomes }] = await Promise.all([overloadLoad(quiet), abuse()])
    const { answered, refused, other } = outcomes.http
    if (refused.count + other > 0) throw new Error(`${name}: ${JSON.stringify(outcomes.http)}`)
    found.quiet.set(name, [...(found.quiet.get(name) ?? []), answered])
    plan.say(`${QUIET_MS} ms of work, ${name}: p50 ${answered.p50Ms}, p99 ${answered.p99Ms} ms`)
  }
}

/** Of the last ten to twenty seconds. */
async function loopLagMs({ ports }: ProductScope): Promise<number> {
  const signal = AbortSignal.timeout(GIVE_UP_MS)
  const answer = await fetch(`http://127.0.0.1:${ports.admin}/metrics`, { signal })
  const value = /event_loop_lag_seconds\{quantile="0.99"\} (\S+)/.exec(await answer.text())?.[1]
  return Number(value) * 1_000
}

function goodput({ peak, over }: Found): Question {
  const group = `${CONCURRENCY} calls at once of ${SERVICE_MS} ms each, deadline ${DEADLINE_MS} ms`
  const row = (name: string, reports: readonly OverloadReport[]): Row => {
    const http = reports.map(({ outcomes }) => outcomes.http)
    return {
      group,
      name,
      // By the calls of all protocols, each round as long as the others.
      ...spread(reports.map(({ inTime }) => inTime)),
      p50Ms: median(http.map(({ answered }) => answered.p50Ms)),
      p99Ms: median(http.map(({ answered }) => answered.p99Ms)),
      errors: sum(reports, ({ late, other }) => late + other),
    }
  }
  const most = row('answered at its peak', peak)
  const answered = row('answered at 3 times as many', over)
  const ratio = Number((answered.median / most.median).toFixed(3))
  return {
    id: 'overload-goodput',
    title: 'Overload: calls answered in time',
    unit: 'calls a round',
    better: 'more',
    rows: [most, { ...answered, ratio }],
  }
}

function refusals({ over, loopLagMs: lags, cpuMs }: Found): Question {
  const group = 'p99 of the calls refused at 3 times the capacity'
  const rows = PROTOCOLS.map(([protocol, name]): Row => {
    const times = over.map(({ outcomes }) => outcomes[protocol].refused)
    return {
      group,
      name,
      ...spread(times.map(({ p99Ms }) => p99Ms)),
      p50Ms: median(times.map(({ p50Ms }) => p50Ms)),
      p99Ms: median(times.map(({ p99Ms }) => p99Ms)),
      errors: over.reduce((all, { outcomes }) => all + outcomes[protocol].withoutHint, 0),
    }
  })
  return {
    id: 'overload-refused',
    title: 'Overload: time to be told when to come back',
    unit: 'ms',
    better: 'less',
    rows: [
      ...rows,
      { group: 'of it', name: 'event loop of the agent, p99', ...rounded(lags) },
      {
        group: 'of it',
        name: 'event loop of the callers, p99',
        ...rounded(over.map(({ lagP99Ms }) => lagP99Ms)),
      },
      { group: 'of it', name: 'processor time of the agent per call', ...rounded(cpuMs) },
    ],
  }
}

function memory({ memoryMiB }: Found): Question {
  const group = 'resident memory of the agent'
  return {
    id: 'overload-memory',
    title: 'Overload: memory',
    unit: 'MiB',
    better: 'less',
    rows: [
      { group, name: 'before', ...spread(memoryMiB.before) },
      { group, name: 'after 3 times the capacity', ...spread(memoryMiB.after) },
    ],
  }
}

function fairness({ quiet }: Found): Question {
  const rows = [...quiet].map(([name, times]): Row => ({
    group: `p99 of a function that works ${QUIET_MS} ms, ${QUIET_CALLS} calls/s`,
    name,
    ...spread(times.map(({ p99Ms }) => p99Ms)),
    p50Ms: median(times.map(({ p50Ms }) => p50Ms)),
    p99Ms: median(times.map(({ p99Ms }) => p99Ms)),
  }))
  const alone = rows[0]?.median ?? Number.NaN
  return {
    id: 'fairness',
    title: 'Fairness: a function and its neighbours',
    unit: 'ms',
    better: 'less',
    rows: rows.map((row) => ({ ...row, ratio: Number((row.median / alone).toFixed(3)) })),
  }
}

const PROTOCOLS = [
  ['http', 'HTTP'],
  ['grpc', 'gRPC'],
  ['coap', 'CoAP'],
] as const satisfies readonly (readonly [Protocol, string])[]

function callsOf({ outcomes }: OverloadReport): number {
  const all = Object.values(outcomes)
  return all.reduce((calls, one) => calls + one.answered.count + one.refused.count + one.other, 0)
}

function sum(
  reports: readonly OverloadReport[],
  of: (one: OverloadReport['outcomes'][Protocol]) => number,
): number {
  return reports.reduce(
    (all, { outcomes }) => all + Object.values(outcomes).reduce((calls, one) => calls + of(one), 0),
    0,
  )
}

function rounded(values: readonly number[]): Pick<Row, 'median' | 'min' | 'max'> {
  return spread(values.map((value) => Number(value.toFixed(3))))
}
