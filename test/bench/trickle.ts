/**
 * What calls meet that come a few times a second after a busy while, when an agent may take itself for idle: their times, those that
 * waited long with when they began, and the agent's memory.
 *
 *   node test/bench/trickle.ts [--seconds 40] [--per-second 20]
 *
 * Docker must run (`node deploy/start.mjs bootstrap`). Result: JSON on standard output.
 */
import { callerLoad } from '#test/caller-load.ts'
import { percentile } from '#test/percentile.ts'
import { memoryOf } from '#test/process-facts.ts'
import { productScope } from '#test/product.ts'
import { Options } from './harness/options.ts'
import { ownTemp } from './harness/own-temp.ts'
import { deploy, ECHO } from './suites/echo-products.ts'

const WORK_MS = 15
const BUSY = { durationMs: 5_000, connections: 256 }
const LATE_MS = 10

const options = new Options('node test/bench/trickle.ts [--seconds 40] [--per-second 20]', {
  seconds: { type: 'string', default: '40' },
  'per-second': { type: 'string', default: '20' },
})
const { values } = options
const seconds = options.count('seconds', values.seconds)
const perSecond = options.count('per-second', values['per-second'])
ownTemp()

await using product = await productScope({ SHOAL_SAMPLES: '0' })
await product.start()
const source = `module.exports = (req, res) => setTimeout(() => res.send('ok'), ${WORK_MS})`
await deploy(product, 'quiet', { 'index.js': source }, [])
await deploy(product, 'busy', ECHO.node, [])
const pid = await product.pid('agent')
await callerLoad({ url: product.url('/busy'), ...BUSY })
const busyMiB = memoryOf(pid).rssMiB
const url = product.url('/quiet')
const records = await callerLoad({ url, durationMs: seconds * 1_000, perSecond })
const ms = records.map(({ tookMs }) => tookMs)
const p50Ms = percentile(ms, 0.5)
const late = ms.flatMap((took, n) =>
  took > p50Ms + LATE_MS ? [{ atS: Math.round(n / perSecond), ms: Math.round(took) }] : [],
)
const rssMiB = { busy: busyMiB, after: memoryOf(pid).rssMiB }
const found = { calls: ms.length, p50Ms, p99Ms: percentile(ms, 0.99), maxMs: Math.max(...ms) }
process.stdout.write(`${JSON.stringify({ ...found, late, rssMiB }, undefined, 2)}\n`)
