/**
 * `npm run soak`: the whole product under mixed load for a long time, with deploys and crashes: nothing may grow, and every answer is
 * right or the defined fault of a function that crashes.
 *
 *     npm run soak [-- --minutes 10] [--warm-up-minutes 3] [--redeploy-seconds 20] [--sample-seconds 10] [--protocols http,coap,grpc]
 *         [--chart soak.svg]
 *
 * Prints JSON on stdout and a short text on stderr. Ends with 1 when a measure rises beyond its bound or an answer was not expected.
 * A day: --minutes 1440 --sample-seconds 60.
 */
import { writeFile } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { Options } from './harness/options.ts'
import { ownTemp } from './harness/own-temp.ts'
import { productScope } from '#test/product.ts'
import { deployAll, deployLive } from './soak/functions.ts'
import { lineChart } from './soak/line-chart.ts'
import { every, mixedLoad } from './soak/mixed-load.ts'
import { sample, type Sample } from './soak/sampler.ts'
import { trend, type Bound, type Point, type Trend } from './soak/slope.ts'
import { Tally } from './soak/tally.ts'

/**
 * What each measure may rise after the warm-up. Memory: what V8 and malloc take and give back by themselves. Disk: each redeploy leaves
 * a release and a rollout in the catalogue, which is its history and is kept.
 */
const BOUNDS: Readonly<Record<string, Bound>> = {
  'agent MiB': { perHour: 5, inRun: 4 },
  'controller MiB': { perHour: 10, inRun: 5 },
  'nats MiB': { perHour: 5, inRun: 3 },
  'agent descriptors': { perHour: 5, inRun: 3 },
  'controller descriptors': { perHour: 5, inRun: 3 },
  'nats descriptors': { perHour: 5, inRun: 3 },
  containers: { perHour: 2, inRun: 1 },
  'disk MiB': { perHour: 20, inRun: 3 },
}
const WARM_UP_SHARE = 0.3
/** Of less than this after the warm-up a slope says nothing: then answers alone decide. */
const JUDGED_MINUTES_MIN = 3

const PROTOCOLS = ['http', 'coap', 'grpc']
const USAGE = `npm run soak [-- OPTIONS]

  --minutes N           default 10; a day is 1440
  --warm-up-minutes N   before which nothing is judged, default 3, at most 10
  --redeploy-seconds N  from one deploy to the next, default 20
  --sample-seconds N    from one look at memory and descriptors to the next, default 10
  --protocols LIST      some of ${PROTOCOLS.join(',')}; default: all
  --chart FILE          an SVG chart of the agent's memory`

const options = new Options(USAGE, {
  minutes: { type: 'string', default: '10' },
  'warm-up-minutes': { type: 'string' },
  'redeploy-seconds': { type: 'string', default: '20' },
  'sample-seconds': { type: 'string', default: '10' },
  protocols: { type: 'string', default: PROTOCOLS.join(',') },
  chart: { type: 'string' },
})
const { values } = options
const minutes = options.positive('minutes', values.minutes)
const warmUp = values['warm-up-minutes'] ?? String(Math.min(10, minutes * WARM_UP_SHARE))
const warmUpMinutes = options.positive('warm-up-minutes', warmUp)
const redeployMs = 1_000 * options.positive('redeploy-seconds', values['redeploy-seconds'])
const sampleMs = 1_000 * options.positive('sample-seconds', values['sample-seconds'])
const protocols = values.protocols.split(',')
const strange = protocols.filter((protocol) => !PROTOCOLS.includes(protocol))
if (strange.length > 0) options.fail(`no such protocol: ${strange.join(', ')}`)
ownTemp()
const loadAtStart = loadavg()[0]

const tally = new Tally()
const samples: Sample[] = []
let redeploys = 0
// Stopped when all has been told: what goes wrong then takes no result away.
await using product = await productScope({ SHOAL_SAMPLES: '0' })
await product.start()
await deployAll(product)
say(`soaking for ${minutes} minutes`)
const signal = AbortSignal.timeout(minutes * 60_000)
await Promise.all([
  mixedLoad({ ports: product.ports, tally, protocols }, signal),
  every(redeployMs, signal, async () => {
    redeploys += 1
    await deployLive(product, redeploys)
  }),
  every(sampleMs, signal, async () => {
    samples.push(await sample(product, tally.total))
  }),
])

const trends = trendsOf(samples)
const judged = minutes - warmUpMinutes >= JUDGED_MINUTES_MIN
const rising = judged ? Object.keys(BOUNDS).filter((name) => trends[name]?.rises !== false) : []
const passed = rising.length === 0 && tally.counts.unexpected === 0 && tally.total > 0
const machine = { cores: cpus().length, cpu: cpus()[0]?.model, node: process.version }
const load = { atStart: loadAtStart, atEnd: loadavg()[0] }
const result = { minutes, warmUpMinutes, machine, load, redeploys, calls: tally.total }
process.stdout.write(
  `${JSON.stringify({ ...result, passed, judged, rising, trends, answers: tally.counts, samples }, undefined, 1)}\n`,
)
if (values.chart !== undefined) {
  const series = Object.keys(BOUNDS).map((name) => ({ name, points: pointsOf(name, samples) }))
  await writeFile(values.chart, lineChart('Soak', series))
}
report()
process.exitCode = passed ? 0 : 1

function trendsOf(all: readonly Sample[]): Record<string, Trend> {
  const startMs = all[0]?.atMs ?? 0
  const warm = all.filter(({ atMs }) => atMs - startMs >= warmUpMinutes * 60_000)
  // The loop's lag and the parts of the disk are told, not judged.
  const free: Bound = { perHour: Infinity, inRun: Infinity }
  const names = Object.keys(all[0]?.values ?? {}).filter((name) => name !== 'calls')
  return Object.fromEntries(
    names.map((name) => [name, trend(pointsOf(name, warm), BOUNDS[name] ?? free)]),
  )
}

function pointsOf(name: string, all: readonly Sample[]): Point[] {
  return all.flatMap(({ atMs, values: { [name]: value } }) =>
    value === undefined ? [] : [{ atMs, value }],
  )
}

function report(): void {
  say(`${tally.total} calls, ${redeploys} redeploys; after ${warmUpMinutes} minutes of warm-up:`)
  for (const [name, { first, last, max, perHour, error, rises }] of Object.entries(trends)) {
    const slope = `${perHour} an hour (± ${error})`
    say(`${judged && rises ? 'RISES ' : ''}${name}: ${first} to ${last}, at most ${max}, ${slope}`)
  }
  const { faults, unexpected, samples: shown } = tally.counts
  for (const [what, count] of Object.entries(faults)) say(`${count} x ${what}`)
  say(`${unexpected} unexpected answers`)
  for (const text of shown) say(text)
  say(passed ? 'passed' : 'FAILED')
}

function say(text: string): void {
  process.stderr.write(`${text}\n`)
}
