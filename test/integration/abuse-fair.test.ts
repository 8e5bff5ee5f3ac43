import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { bareRefuser } from '#test/bare-refuser.ts'
import { type CallerLoad, callerLoad } from '#test/caller-load.ts'
import { eventually } from '#test/eventually.ts'
import { percentile } from '#test/percentile.ts'
import { ServedNode } from '#test/served-node.ts'

const SERVICE_MS = 15
const QUIET = `module.exports = (req, res) => setTimeout(() => res.send('ok'), ${SERVICE_MS})`
/** Room for all calls of a moment in which the machine stands still. */
const QUIET_SETTINGS = { concurrency: 64, queue: 128 }
const ROUNDS_MAX = 8
const ROUND_MS = 1_000

interface Quiet {
  readonly p50: number
  readonly p99: number
}

/**
 * What callers of the quiet function, or of another server, see: 100 calls a second, from a process of their own. `undefined`: that
 * had no turn to make enough of them.
 */
async function quiet(url: string): Promise<Quiet | undefined> {
  const records = await callerLoad({ url, durationMs: ROUND_MS, perSecond: 100 })
  assert.deepEqual(
    records.filter(({ status }) => status !== 200),
    [],
    'the quiet function answers every call',
  )
  if (records.length <= 20) return undefined
  const took = records.map(({ tookMs }) => tookMs)
  return { p50: percentile(took, 0.5), p99: percentile(took, 0.99) }
}

/** Of a p99: what the turns of the callers' own processes come to beside a flood on two cores. */
const TURNS_MS = 10
/** Rounds before a server that has nothing to do with the node is looked at as well. */
const OWN_ROUNDS = 3

function keep(rounds: Quiet[], round: Quiet | undefined): void {
  if (round !== undefined) rounds.push(round)
}

const best = (rounds: readonly Quiet[], key: keyof Quiet): number =>
  Math.min(...rounds.map((round) => round[key]))

function isWithinTwice(seen: readonly Quiet[], reference: readonly Quiet[]): boolean {
  if (seen.length === 0 || reference.length === 0) return false
  const isTypical = best(seen, 'p50') <= 2 * best(reference, 'p50')
  return isTypical && best(seen, 'p99') <= 2 * best(reference, 'p99') + TURNS_MS
}

/**
 * Within twice what it is alone. Rounds with and without the neighbour alternate, and the best of each count: what else the
 * machine does only ever adds. Where the flood itself takes the machine's cores, within twice what a bare server beside the node
 * sees of the same flood.
 *
 * @param abuse - for one round; false: it came to nothing, and the round does not count
 */
async function assertUntouched(
  node: ServedNode,
  abuse: () => Promise<boolean | void>,
): Promise<void> {
  await using bare = await bareRefuser({ concurrency: 64, serviceMs: SERVICE_MS })
  const url = node.url('/quiet')
  await quiet(url)
  const alone: Quiet[] = []
  const beside: Quiet[] = []
  const besideBare: Quiet[] = []
  const underAbuse = async (seen: Quiet[], of: string): Promise<void> => {
    const abused = abuse()
    await sleep(200)
    const round = await quiet(of)
    if ((await abused) !== false) keep(seen, round)
  }
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    keep(alone, await quiet(url))
    await underAbuse(beside, url)
    if (isWithinTwice(beside, alone)) return
    if (round < OWN_ROUNDS) continue
    await underAbuse(besideBare, bare.url)
    if (isWithinTwice(beside, besideBare)) return
  }
  assert.fail(JSON.stringify({ alone, beside, besideBare }))
}

const FLOOD_MS = ROUND_MS + 700
const FLOOD_CALLS_MIN = 60

/** Waits for a flood to arrive and to end. False: its process had no turn to make enough calls. */
async function floods(load: CallerLoad, arrived: () => boolean): Promise<boolean> {
  const arriving = eventually(arrived)
  const [records] = await Promise.all([callerLoad(load), arriving.catch(() => undefined)])
  if (records.length < FLOOD_CALLS_MIN) return false
  await arriving
  return true
}

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
    let most = 0
    const flood = { url, durationMs: FLOOD_MS, connections: 200 }
    const came = await floods(flood, () => {
      const { queued, inFlight } = lane.stats().calls
      most = Math.max(most, inFlight)
      return queued > 100 && inFlight >= 30
    })
    assert.ok(most <= 32, `${most} in work`)
    return came
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
  const flood = { url, durationMs: 300, perSecond: 500, headers }
  await assertUntouched(node, () => floods(flood, () => lane.stats().calls.inFlight >= 30))
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
