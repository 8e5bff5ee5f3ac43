import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { performance } from 'node:perf_hooks'
import { describe, it, type TestContext } from 'node:test'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { BusyPoll } from '#agent/invoke/lane/index.ts'
import { Usual } from '#agent/invoke/lane/usual.ts'
import { LaneScope } from '#test/lane-scope.ts'

const LIMIT_MS = 0.2
const QUICK_MS = 0.05
const LONG_MS = 30

describe('waiting awake', () => {
  it('begins when calls have come one by one for a while, and ends with the answer', async () => {
    using node = new Node()
    for (let call = 1; call <= 16; call++) {
      node.send(QUICK_MS)
      assert.equal(await node.looks(10), 0, `call ${call} of a node that may have many callers`)
      node.end()
      node.nowMs += LONG_MS
    }
    node.send(QUICK_MS)
    assert.equal(await node.looks(10), 10, 'each turn of the loop looks again')
    node.end()
    assert.equal(await node.looks(10), 1, 'the look that finds out')
    assert.equal(await node.looks(10), 0)
    node.nowMs += LONG_MS
    node.send(QUICK_MS)
    assert.equal(await node.looks(10), 10)
  })

  it('goes on until the next call of a caller that is as quick', async () => {
    using node = new Node()
    node.alone(LONG_MS, QUICK_MS)
    assert.equal(await node.looks(10), 10, 'the call before this one has just ended')
    node.send(LONG_MS)
    assert.equal(await node.looks(10), 1, 'the look that finds out')
    assert.equal(await node.looks(10), 0, 'its answer will take long')
    node.nowMs += LONG_MS
    node.end()
    assert.equal(await node.looks(10), 10)
  })

  it('ends with the limit when neither comes', async () => {
    using node = new Node()
    node.alone(QUICK_MS, QUICK_MS)
    for (const act of ['send', 'end'] as const) {
      node[act](QUICK_MS)
      node.nowMs += LIMIT_MS - 0.01
      assert.equal(await node.looks(10), 10)
      node.nowMs += 0.02
      assert.equal(await node.looks(10), 1, 'the look that finds out')
      assert.equal(await node.looks(10), 0)
    }
  })

  it('is not for functions that take long, or that nothing is known of', async () => {
    for (const usualMs of [LIMIT_MS, LONG_MS, undefined]) {
      using node = new Node()
      node.alone(QUICK_MS, LONG_MS)
      node.send(usualMs)
      assert.equal(await node.looks(10), 0, String(usualMs))
    }
  })

  it('is not for calls beside others, and only begins again when they have come one by one', async () => {
    using node = new Node()
    node.alone(QUICK_MS, LONG_MS)
    node.send(QUICK_MS)
    node.send(QUICK_MS)
    assert.equal(await node.looks(10), 1, 'the look that finds out')
    assert.equal(await node.looks(10), 0)
    node.end()
    node.end()
    node.send(QUICK_MS)
    assert.equal(await node.looks(10), 0)
    node.end()
    node.alone(QUICK_MS, LONG_MS)
    node.send(QUICK_MS)
    assert.equal(await node.looks(10), 10)
  })

  it('is not for calls that had to wait for each other', async () => {
    using node = new Node()
    node.alone(QUICK_MS, QUICK_MS)
    node.send(QUICK_MS, node.nowMs - QUICK_MS)
    assert.equal(await node.looks(10), 1, 'the look that finds out')
    assert.equal(await node.looks(10), 0)
    node.end()
    assert.equal(await node.looks(10), 0)
  })

  it('can be turned off', async () => {
    using node = new Node(0)
    node.alone(0, 0)
    node.send(0)
    assert.equal(await node.looks(10), 0)
    node.end()
    assert.equal(await node.looks(10), 0)
  })

  it('looks once a turn, however many calls follow each other in it', async () => {
    using node = new Node()
    node.alone(QUICK_MS, QUICK_MS)
    for (let call = 0; call < 5; call++) {
      node.send(QUICK_MS)
      node.end()
    }
    node.send(QUICK_MS)
    assert.equal(await node.looks(10), 10)
  })
})

describe('a node with one caller', { skip: availableParallelism() === 1 }, () => {
  it('is awake until its answer comes or the limit is over, and asleep before the next call', async (t) => {
    const scope = called(t, QUICK_MS, LONG_MS)
    assert.ok(!(await isAwake()))
    scope.call('answered')
    assert.ok(await isAwake())
    scope.answer('answered')
    assert.ok(!(await isAwake()))
    scope.pass(LONG_MS)
    scope.call('slow')
    scope.pass(LIMIT_MS - 0.01)
    assert.ok(await isAwake())
    scope.pass(0.02)
    assert.ok(!(await isAwake()))
  })

  it('stays awake for the next call of a quick one', async (t) => {
    const scope = called(t, LONG_MS, QUICK_MS)
    assert.ok(await isAwake())
    scope.pass(LIMIT_MS)
    assert.ok(!(await isAwake()))
  })

  it('sleeps whenever it can unless it is told otherwise', async (t) => {
    const scope = called(t, QUICK_MS, QUICK_MS, {})
    assert.ok(!(await isAwake()))
    scope.call('last')
    assert.ok(!(await isAwake()))
  })
})

/** Called a hundred times, one by one. When the test is over, so is whatever it waits for. */
function called(
  test: TestContext,
  tookMs: number,
  gapMs: number,
  options: { busyPollMicros?: number } = { busyPollMicros: 200 },
): LaneScope {
  const scope = new LaneScope({}, options)
  test.after(() => scope.pass(LONG_MS))
  scope.attached()
  for (let call = 0; call < 100; call++) {
    scope.pass(gapMs)
    scope.call(`call ${call}`)
    scope.pass(tookMs)
    scope.answer(`call ${call}`)
  }
  return scope
}

/** The event loop goes round some thousand times in such a time without sleeping, else a few times; or it had no processor. */
async function isAwake(): Promise<boolean> {
  for (let window = 0; window < 5; window++) {
    const before = performance.nodeTiming.uvMetricsInfo.loopCount
    await sleep(20)
    if (performance.nodeTiming.uvMetricsInfo.loopCount - before > 100) return true
  }
  return false
}

describe('what is usual', () => {
  it('is not known before the first value', () => assert.equal(usual([]), undefined))

  it('is what most values are near to, however far off the others are', () => {
    const found = usual(of(1_000, (index) => (index % 5 === 0 ? 1_000 : 0.1))) ?? 0
    assert.ok(found > 0.07 && found < 0.15, String(found))
  })

  it('follows when that changes', () => {
    const found = usual([...of(200, () => 0.1), ...of(200, () => 30)]) ?? 0
    assert.ok(found > 25 && found < 35, String(found))
  })

  it('comes back from nothing', () => {
    const found = usual([...of(500, () => 0), ...of(200, () => 1)]) ?? 0
    assert.ok(found > 0.9 && found < 1.1, String(found))
  })
})

function usual(values: readonly number[]): number | undefined {
  const found = new Usual()
  for (const value of values) found.note(value)
  return found.value
}

const of = (count: number, value: (index: number) => number): number[] =>
  Array.from({ length: count }, (_, index) => value(index))

/** Calls in work, and a clock that stands still. Each look asks for the calls once. */
class Node implements Disposable {
  nowMs = 0
  #inWork = 0
  #asked = 0
  readonly #poll: BusyPoll

  constructor(limitMs = LIMIT_MS) {
    const inWork = (): number => {
      this.#asked += 1
      return this.#inWork
    }
    this.#poll = new BusyPoll(inWork, limitMs, () => this.nowMs)
  }

  send(usualMs: number | undefined, startedAtMs = this.nowMs): void {
    this.#inWork += 1
    this.#poll.sent(this.nowMs, startedAtMs, usualMs)
    this.#asked -= 1
  }

  end(): void {
    this.#inWork -= 1
    this.#poll.ended(this.nowMs)
    this.#asked -= 1
  }

  /** So many calls one after the other that the next one is alone beyond doubt. */
  alone(tookMs: number, gapMs: number): void {
    for (let call = 0; call < 100; call++) {
      this.nowMs += gapMs
      this.send(undefined)
      this.nowMs += tookMs
      this.end()
    }
  }

  /** How often it looks within so many turns of the event loop. */
  async looks(turns: number): Promise<number> {
    const before = this.#asked
    for (let count = 0; count < turns; count++) await turn()
    return this.#asked - before
  }

  /** Its time is over: else it would look for ever. */
  [Symbol.dispose](): void {
    this.nowMs += LONG_MS
  }
}
