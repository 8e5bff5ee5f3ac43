/**
 * The callers of the suite `overload`, in a process of their own: `node callers.ts <OverloadPlan as JSON>`; prints one
 * `OverloadReport` as JSON.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { HttpCallers } from './http-callers.ts'
import { coapProber, grpcProber, type Prober } from './probes.ts'
import type { OverloadPlan, OverloadReport } from './report.ts'
import { Tally } from './tally.ts'

const RESOLUTION_MS = 1
const NS_PER_MS = 1e6

const plan: OverloadPlan = JSON.parse(process.argv[2] ?? '')
const { fn, durationMs, deadlineMs, closedLoop = 0, perSecond = 0, probesPerSecond = 0 } = plan
const tallies = {
  http: new Tally(deadlineMs),
  grpc: new Tally(deadlineMs),
  coap: new Tally(deadlineMs),
}
const callers = new HttpCallers(plan.http, fn, deadlineMs, tallies.http)
await using grpc = await grpcProber(plan.grpc, fn, deadlineMs, tallies.grpc)
await using coap = coapProber(plan.coap, fn, tallies.coap)

const lag = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
lag.enable()
const cpuBefore = process.cpuUsage()
const beganAtMs = performance.now()
const probes: Promise<void>[] = []
await Promise.all([loop(), ...(probesPerSecond > 0 ? [grpc, coap].map(probe) : [])])
const tookMs = performance.now() - beganAtMs
const inTime = Object.values(tallies).reduce((sum, tally) => sum + tally.inTime, 0)
const { user, system } = process.cpuUsage(cpuBefore)
lag.disable()
await Promise.race([ended(), sleep(deadlineMs + 1_000)])
callers.close()

const { http } = tallies
const report: OverloadReport = {
  inTime,
  outcomes: {
    http: http.outcomes(),
    grpc: tallies.grpc.outcomes(),
    coap: tallies.coap.outcomes(),
  },
  lagP99Ms: Number(Math.max(0, lag.percentile(99) / NS_PER_MS - RESOLUTION_MS).toFixed(3)),
  cpuShare: Number(((user + system) / 1_000 / tookMs).toFixed(3)),
}
process.stdout.write(`${JSON.stringify(report)}\n`)

/** The calls over HTTP. */
async function loop(): Promise<void> {
  const endsAtMs = beganAtMs + durationMs
  if (closedLoop > 0) {
    callers.onFree = () => {
      if (performance.now() < endsAtMs) callers.call()
    }
    for (let caller = 0; caller < closedLoop; caller++) callers.call()
    await sleep(durationMs)
  } else {
    await pace(perSecond, () => callers.call())
  }
}

function probe(prober: Prober): Promise<void> {
  return pace(probesPerSecond, () => probes.push(prober.call()))
}

/** So many begin each second, whatever becomes of them. */
async function pace(each: number, begin: () => void): Promise<void> {
  const endsAtMs = beganAtMs + durationMs
  for (let begun = 0; performance.now() < endsAtMs; await sleep(1)) {
    const due = ((performance.now() - beganAtMs) / 1_000) * each
    for (; begun < due; begun++) begin()
  }
}

async function ended(): Promise<void> {
  await Promise.all(probes)
  while (callers.running > 0) await sleep(5)
}
