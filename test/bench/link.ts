/**
 * The hop alone: calls through a link to a real Node runner in a process of its own. Prints JSON.
 *
 *     node test/bench/link.ts [--seconds 3] [--rounds 3] [--only <name>] [--runner <file>]
 */
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import type { Invocation, LaneSettings, Result, RunnerLink } from '#agent/invoke/index.ts'
import { LANE_SETTINGS, invocation } from '#test/invoke-scope.ts'
import { RunnerProcess } from '#test/runner-process.ts'

interface Scenario {
  readonly name: string
  readonly inFlight: number
  readonly bodyBytes: number
}

const SCENARIOS: readonly Scenario[] = [
  { name: '100 B, 1 in flight', inFlight: 1, bodyBytes: 100 },
  { name: '100 B, 32 in flight', inFlight: 32, bodyBytes: 100 },
  { name: '100 B, 256 in flight', inFlight: 256, bodyBytes: 100 },
  { name: '64 KiB, 8 in flight', inFlight: 8, bodyBytes: 64 * 1024 },
  { name: '1 MiB, 4 in flight', inFlight: 4, bodyBytes: 1024 * 1024 },
]

const SETTINGS: LaneSettings = { ...LANE_SETTINGS, concurrency: 1024, queue: 0 }
const ECHO = 'module.exports = (req, res) => { res.send(req.body) }\n'

interface Round {
  readonly callsPerS: number
  readonly p50Ms: number
  readonly p99Ms: number
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    runner: { type: 'string' },
  },
})

await using runner = await RunnerProcess.start(ECHO, values.runner)
const { link, scope } = runner
scope.router.ensure('echo', SETTINGS).attach(link, 'r1-0a1b2c3d')

const results: object[] = []
for (const scenario of SCENARIOS) {
  if (scenario.name.includes(values.only)) results.push(await measure(scenario, link))
}
process.stdout.write(
  `${JSON.stringify(
    {
      node: process.version,
      cpu: cpus()[0]?.model,
      cores: cpus().length,
      results,
    },
    undefined,
    2,
  )}\n`,
)

async function measure(scenario: Scenario, of: RunnerLink): Promise<object> {
  await round(scenario, 1_000)
  const rounds: Round[] = []
  for (let index = 0; index < Number(values.rounds); index += 1) {
    rounds.push(await round(scenario, Number(values.seconds) * 1_000))
  }
  const rates = rounds.map(({ callsPerS }) => callsPerS).toSorted((a, b) => a - b)
  const median = rates[Math.floor(rates.length / 2)]
  return {
    ...scenario,
    callsPerS: median,
    min: rates[0],
    max: rates.at(-1),
    p50Ms: rounds[0]?.p50Ms,
    p99Ms: rounds[0]?.p99Ms,
    rssMiB: Math.round(process.memoryUsage.rss() / 1024 / 1024),
    inFlightAfter: of.inFlight,
  }
}

/** Keeps `inFlight` calls going for a while; every answer starts the next call. */
function round({ inFlight, bodyBytes }: Scenario, durationMs: number): Promise<Round> {
  const { promise, resolve, reject } = Promise.withResolvers<Round>()
  const body = Buffer.alloc(bodyBytes, 'x')
  const headers = ['content-type', 'application/octet-stream']
  const call: Invocation = invocation({ body, headers })
  const took = new Float64Array(1 << 16)
  const startedAt = performance.now()
  let calls = 0
  let open = 0

  const finish = (at: number): void => {
    open -= 1
    if (open > 0) return
    const seen = took.subarray(0, Math.min(calls, took.length)).toSorted()
    resolve({
      callsPerS: Math.round((calls * 1_000) / (at - startedAt)),
      p50Ms: round3(seen[Math.floor(seen.length * 0.5)]),
      p99Ms: round3(seen[Math.floor(seen.length * 0.99)]),
    })
  }
  const next = (): void => {
    const sentAt = performance.now()
    const done = (bytes: number): void => {
      const at = performance.now()
      if (bytes !== bodyBytes) return reject(new Error(`${bytes} bytes came back`))
      took[calls % took.length] = at - sentAt
      calls += 1
      if (at - startedAt < durationMs) next()
      else finish(at)
    }
    const answered = (result: Result): void => {
      if (Buffer.isBuffer(result.body)) return done(result.body.length)
      let bytes = 0
      result.body.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      result.body.on('end', () => done(bytes))
    }
    scope.router.start(call, undefined, answered, reject)
  }
  for (; open < inFlight; open += 1) next()
  return promise
}

function round3(value: number | undefined): number {
  return Math.round((value ?? 0) * 1_000) / 1_000
}
