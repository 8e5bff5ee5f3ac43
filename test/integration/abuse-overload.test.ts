import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CallRecord } from '#test/caller-load.ts'
import { bareRefuser } from '#test/bare-refuser.ts'
import { callerLoad } from '#test/caller-load.ts'
import { grpcClient } from '#test/grpc-proxy-scope.ts'
import { percentile } from '#test/percentile.ts'
import { RawCoap, optionNumber, uriPath } from '#test/raw-coap.ts'
import { ServedNode } from '#test/served-node.ts'

const MIB = 1024 * 1024
/** Rounds of a measurement: what else the machine does only ever costs, so one good one is enough. */
const ROUNDS_MAX = 5
const SERVICE_MS = 20
const CONCURRENCY = 8
/** Calls per second that the function can serve; timers are late rather than early, so its true peak is a little below. */
const CAPACITY = (CONCURRENCY * 1_000) / SERVICE_MS
const ROUND_MS = 2_000
const DEADLINE_MS = 500
/** Less than a full queue takes. */
const QUEUE_DEADLINE_MS = 100

const KNOWN = `module.exports = (req, res) => setTimeout(() => res.send('ok'), ${SERVICE_MS})`

const answered = (records: readonly CallRecord[]) => records.filter(({ status }) => status === 200)
const refused = (records: readonly CallRecord[]) => records.filter(({ status }) => status === 429)
const listed = (ms: readonly number[]) => ms.map((value) => value.toFixed(1)).join(' ')
const tookMs = (records: readonly CallRecord[]) => records.map((record) => record.tookMs)
/** Infinity where there is nothing to measure: another round then. */
const percentileOf = (ms: readonly number[], share: number): number =>
  ms.length === 0 ? Infinity : percentile(ms, share)
const refusedMs = (records: readonly CallRecord[]) => percentileOf(tookMs(refused(records)), 0.95)

/** A round at what `url` can serve at most, and one at three times as much. */
async function overloaded(url: string, headers: Readonly<Record<string, string>>) {
  const peak = await callerLoad({ url, durationMs: ROUND_MS, connections: CONCURRENCY })
  const all = await callerLoad({ url, durationMs: ROUND_MS, perSecond: 3 * CAPACITY, headers })
  return {
    all,
    goodput: answered(all).length / (answered(peak).length || Infinity),
    answeredMs: percentileOf(tookMs(answered(all)), 0.99),
    other: all.length - answered(all).length - refused(all).length,
  }
}

test('three times what a function can serve: as much is answered as ever, in time, and the rest is refused at once', async () => {
  await using node = await ServedNode.start()
  await node.deploy('known', KNOWN, { concurrency: CONCURRENCY, queue: 16 })
  const url = node.url('/known')
  const headers = { 'x-shoal-deadline-ms': String(DEADLINE_MS) }
  await callerLoad({ url, durationMs: 500, perSecond: 3 * CAPACITY, headers })
  const rssBefore = process.memoryUsage().rss
  // The same load on a server that does nothing else tells what the machine and the callers take of the 5 ms.
  await using bare = await bareRefuser({ concurrency: CONCURRENCY, serviceMs: SERVICE_MS })
  const rounds: object[] = []
  const best = { bareMs: Infinity, ownMs: Infinity, goodput: 0, bareGoodput: 0, refusedShare: 0 }
  for (;;) {
    const own = await overloaded(url, headers)
    const { all, answeredMs, other } = own
    assert.ok(refused(all).every(({ retryAfter }) => Number(retryAfter) >= 1))
    const reference = await overloaded(bare.url, headers)
    best.bareMs = Math.min(best.bareMs, refusedMs(reference.all))
    best.bareGoodput = Math.max(best.bareGoodput, reference.goodput)
    best.ownMs = Math.min(best.ownMs, refusedMs(all))
    best.goodput = Math.max(best.goodput, own.goodput)
    best.refusedShare = Math.max(best.refusedShare, refused(all).length / (all.length || Infinity))
    rounds.push({ ...best, answeredMs, other })
    // Else there is nothing to compare with.
    const known = best.bareMs < Infinity && best.bareGoodput > 0
    const machineMs = 2 * best.bareMs
    const inTime =
      best.ownMs <= 5 + machineMs && answeredMs < DEADLINE_MS + machineMs && other === 0
    const goodputMin = 0.9 * Math.min(1, best.bareGoodput)
    if (known && best.goodput >= goodputMin && best.refusedShare > 1 / 3 && inTime) break
    assert.ok(rounds.length < ROUNDS_MAX, JSON.stringify(rounds))
  }
  const grown = process.memoryUsage().rss - rssBefore
  assert.ok(grown < 48 * MIB, `the agent grew by ${grown} bytes`)
})

test('calls whose deadline the queue would use up are refused at once, and those that wait are answered in time', async () => {
  await using node = await ServedNode.start()
  // A full queue would take 64 / 8 * 20 = 160 ms.
  const { lane } = await node.deploy('known', KNOWN, { concurrency: CONCURRENCY, queue: 64 })
  // Answers each that it takes after 20 ms: those that its callers have later than the deadline are the machine's.
  await using bare = await bareRefuser({ concurrency: CONCURRENCY, serviceMs: SERVICE_MS })
  const load = (deadlineMs: number, perSecond: number, url = node.url('/known')) =>
    callerLoad({
      url,
      durationMs: ROUND_MS,
      perSecond,
      headers: { 'x-shoal-deadline-ms': String(deadlineMs) },
    })
  const rounds: object[] = []
  for (;;) {
    await load(1_000, CAPACITY / 2)
    const before = lane.stats().calls.timedOut
    const all = await load(QUEUE_DEADLINE_MS, 3 * CAPACITY)
    const late = lane.stats().calls.timedOut - before
    const taken = answered(all).length + late
    const bareAll = answered(await load(QUEUE_DEADLINE_MS, 3 * CAPACITY, bare.url))
    const bareLate = bareAll.filter(({ tookMs: ms }) => ms > QUEUE_DEADLINE_MS).length
    rounds.push({ all: all.length, refused: refused(all).length, late, taken, bareLate })
    const lateMax = 1 / 6 + bareLate / (bareAll.length || Infinity)
    if (refused(all).length > all.length / 3 && taken > 0 && late / taken < lateMax) break
    assert.ok(rounds.length < ROUNDS_MAX, JSON.stringify(rounds))
  }
})

test('a refusal tells when to come back, by every protocol, within milliseconds', async () => {
  await using node = await ServedNode.start()
  await node.deploy('busy', 'module.exports = () => {}', {
    concurrency: 1,
    queue: 0,
    timeoutMs: 600_000,
  })
  const leaving = new AbortController()
  const occupying = fetch(node.url('/busy'), { signal: leaving.signal }).catch(() => undefined)
  await using bare = await bareRefuser({ concurrency: 0, serviceMs: 0 })
  await using coap = await RawCoap.open(node.coap.port)
  using grpc = grpcClient(`127.0.0.1:${node.grpc.port}`, 'shoal.proto', 'shoal.v1.Functions')
  while (node.router.lane('busy')?.stats().calls.inFlight !== 1) {
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  let took: Record<string, number[]> = {}
  const timed = async <T>(name: string, call: () => Promise<T>): Promise<T> => {
    const startedAtMs = performance.now()
    const answer = await call()
    ;(took[name] ??= []).push(performance.now() - startedAtMs)
    return answer
  }
  const refusedByEach = async (): Promise<void> => {
    await timed('bare', async () => (await fetch(bare.url)).text())
    const http = await timed('http', () => fetch(node.url('/busy')))
    assert.equal(http.status, 429)
    assert.ok(Number(http.headers.get('retry-after')) >= 1)
    await http.text()
    const packet = { code: 'GET', options: uriPath('busy') } as const
    const answer = await timed('coap', () => coap.ask(packet))
    assert.equal(answer.code, '4.29')
    assert.ok((optionNumber(answer, 'Max-Age') ?? 0) >= 1)
    const { code, trailer } = await timed('grpc', () =>
      grpc.failure('Invoke', { function: 'busy' }),
    )
    assert.equal(code, 8)
    assert.ok(Number(trailer.get('retry-after-ms')[0]) > 0)
    assert.deepEqual(trailer.get('grpc-retry-pushback-ms'), trailer.get('retry-after-ms'))
  }
  for (let rounds = 1; ; rounds += 1) {
    took = {}
    for (let n = 0; n < 20; n += 1) await refusedByEach()
    const { bare: bareMs = [], ...ownMs } = took
    const boundMs = 5 + 2 * percentile(bareMs, 0.9)
    if (Object.values(ownMs).every((ms) => percentile(ms, 0.9) <= boundMs)) break
    assert.ok(
      rounds < ROUNDS_MAX,
      Object.entries(took)
        .map(([name, ms]) => `${name}: ${listed(ms)}`)
        .join('\n'),
    )
  }
  leaving.abort()
  await occupying
})
