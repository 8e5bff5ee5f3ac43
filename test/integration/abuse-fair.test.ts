import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { callerLoad } from '#test/caller-load.ts'
import { eventually } from '#test/eventually.ts'
import { percentile } from '#test/percentile.ts'
import { ServedNode } from '#test/served-node.ts'

const QUIET = `module.exports = (req, res) => setTimeout(() => res.send('ok'), 15)`
/** Room for all calls of a moment in which the machine stands still. */
const QUIET_SETTINGS = { concurrency: 64, queue: 128 }
const ROUNDS_MAX = 8
const ROUND_MS = 1_000

interface Quiet {
  readonly p50: number
  readonly p99: number
}

/** What callers of the quiet function see: 100 calls a second, each from a process of their own. */
async function quiet(node: ServedNode): Promise<Quiet> {
  const load = { url: node.url('/quiet'), durationMs: ROUND_MS, perSecond: 100 }
  const records = await callerLoad(load)
  assert.ok(records.length > 20, `${records.length} calls`)
  assert.deepEqual(
    records.filter(({ status }) => status !== 200),
    [],
    'the quiet function answers every call',
  )
  const took = records.map(({ tookMs }) => tookMs)
  return { p50: percentile(took, 0.5), p99: percentile(took, 0.99) }
}

/** Of a p99: what the turns of the callers' own processes come to beside a flood on two cores. */
const TURNS_MS = 10

/**
 * Within twice what it is alone. Rounds with and without the neighbour alternate, and the best of each count: what else the
 * machine does only ever adds.
 *
 * @param abuse - for one round; false: it came to nothing, and the round does not count
 */
async function assertUntouched(
  node: ServedNode,
  abuse: () => Promise<boolean | void>,
): Promise<void> {
  await quiet(node)
  const alone: Quiet[] = []
  const beside: Quiet[] = []
  const best = (rounds: readonly Quiet[], key: keyof Quiet): number =>
    Math.min(...rounds.map((round) => round[key]))
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    alone.push(await quiet(node))
    const abused = abuse()
    await sleep(200)
    const seen = await quiet(node)
    if ((await abused) === false) continue
    beside.push(seen)
    const isTypical = best(beside, 'p50') <= 2 * best(alone, 'p50')
    if (isTypical && best(beside, 'p99') <= 2 * best(alone, 'p99') + TURNS_MS) return
  }
  assert.fail(`alone ${JSON.stringify(alone)}, beside its neighbour ${JSON.stringify(beside)}`)
}

const FLOOD_MS = ROUND_MS + 700

test('a function that is flooded with what it can answer at once does not slow another one down', async () => {
  await using node = await ServedNode.start()
  await node.deploy('quiet', QUIET, QUIET_SETTINGS)
  const echo = 'module.exports = (req, res) => res.send(req.rawBody)'
  await node.deploy('flooded', echo, { concurrency: 64, queue: 256 })
  const url = node.url('/flooded')
  await assertUntouched(node, async () => {
    const flood = await callerLoad({ url, durationMs: FLOOD_MS, connections: 64 })
    return flood.length > 300
  })
})

test('one that has every place of the node in use, and hundreds waiting for more, does not', async () => {
  await using node = await ServedNode.start({ callsMax: 32 })
  await node.deploy('quiet', QUIET, QUIET_SETTINGS)
  const slow = 'module.exports = (req, res) => setTimeout(() => res.send("slow"), 500)'
  const { lane } = await node.deploy('flooded', slow, { concurrency: 256, queue: 256 })
  const url = node.url('/flooded')
  await assertUntouched(node, async () => {
    const flood = callerLoad({ url, durationMs: FLOOD_MS, connections: 200 })
    await eventually(() => lane.stats().calls.queued > 100)
    const { inFlight } = lane.stats().calls
    assert.ok(inFlight >= 30 && inFlight <= 32, `${inFlight} in work`)
    await flood
  })
})

test('one that hangs on all places does not', async () => {
  await using node = await ServedNode.start({ callsMax: 32 })
  await node.deploy('quiet', QUIET, QUIET_SETTINGS)
  const { lane } = await node.deploy('hangs', 'module.exports = () => {}', {
    concurrency: 256,
    queue: 256,
  })
  const headers = { 'x-shoal-deadline-ms': String(FLOOD_MS) }
  const url = node.url('/hangs')
  await assertUntouched(node, async () => {
    const flood = callerLoad({ url, durationMs: 300, perSecond: 500, headers })
    await eventually(() => lane.stats().calls.inFlight >= 30)
    await flood
  })
})

test('one whose handlers crash all the time does not', async () => {
  await using node = await ServedNode.start()
  await node.deploy('quiet', QUIET, QUIET_SETTINGS)
  const url = node.url('/crashes')
  await assertUntouched(node, async () => {
    const killed = `module.exports = () => process.kill(process.pid, 'SIGKILL')`
    await node.deploy('crashes', killed, { queue: 16 }, 2)
    const records = await callerLoad({ url, durationMs: FLOOD_MS, perSecond: 50 })
    assert.ok(records.filter(({ status }) => status === 502).length >= 2)
  })
})
