import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { LANE_SETTINGS } from '#test/invoke-scope.ts'
import { LaneScope } from '#test/lane-scope.ts'

describe('places of the node', () => {
  it('while there are free ones a function has as many as its handlers take', () => {
    const scope = new LaneScope({ concurrency: 8 }, { callsMax: 8 })
    scope.attached()
    for (let index = 0; index < 8; index += 1) scope.call(`a${index}`)
    assert.equal(scope.requests().length, 8)
  })

  it('when all are taken, functions take turns for each one that becomes free', () => {
    const scope = new LaneScope({ concurrency: 100, queue: 100 }, { callsMax: 4 })
    scope.attached()
    const other = scope.runner()
    scope.router
      .ensure('other', { ...LANE_SETTINGS, concurrency: 100, queue: 100 })
      .attach(other.link, 'r1-0a1b2c3d')
    // Of the two functions each may always have one.
    for (let index = 0; index < 10; index += 1) scope.call(`a${index}`)
    for (let index = 0; index < 10; index += 1) scope.call(`b${index}`, { fn: 'other' })
    assert.deepEqual(scope.requests(), ['a0', 'a1', 'a2', 'a3', 'b0'])
    // Five of four places are in use: the first answer frees none, then a, b and a have a turn.
    for (const id of ['a0', 'a1', 'a2', 'a3']) scope.answer(id)
    assert.deepEqual(scope.requests(), ['b0', 'a4', 'b1', 'a5'])
  })

  it('a function that hangs on all places leaves the others their part', () => {
    const scope = new LaneScope({ concurrency: 100, queue: 100 }, { callsMax: 4 })
    scope.attached()
    for (let index = 0; index < 50; index += 1) scope.call(`hang${index}`)
    const other = scope.runner()
    scope.router.ensure('other', LANE_SETTINGS).attach(other.link, 'r1-0a1b2c3d')
    const outcomes = ['b0', 'b1', 'b2'].map((id) => {
      const call = scope.call(id, { fn: 'other' })
      scope.answer(id)
      return call.outcome
    })
    assert.deepEqual(outcomes, ['ok 200', 'ok 200', 'ok 200'])
  })

  it('calls that end for whatever reason give their places back', () => {
    const scope = new LaneScope({ concurrency: 100, queue: 100 }, { callsMax: 2 })
    const runner = scope.attached()
    const abort = new AbortController()
    const first = scope.call('a', {}, abort.signal)
    scope.call('b')
    const waiting = scope.call('c')
    const bad = scope.call('bad', { path: 'a\nb' })
    abort.abort()
    assert.equal(first.outcome, 'CALLER_GONE')
    assert.equal(waiting.outcome, 'open', 'the runner works on the first one still')
    scope.fail('a', 3, 'stopped')
    assert.deepEqual(scope.requests(), ['b', 'c'])
    scope.answer('b')
    assert.equal(bad.outcome, 'REQUEST_INVALID')
    scope.answer('c')
    scope.call('d')
    scope.call('e')
    assert.equal(runner.link.inFlight, 2)
    runner.end()
    scope.attached()
    scope.call('f')
    scope.call('g')
    assert.deepEqual(scope.requests().slice(-2), ['f', 'g'])
  })
})

describe('early refusal', () => {
  it('a call that would be answered after its deadline does not wait for that', () => {
    const scope = new LaneScope({ concurrency: 2, queue: 100, timeoutMs: 5_000 })
    scope.attached()
    for (let round = 0; round < 5; round += 1) {
      scope.call(`w${round}`)
      scope.requests()
      scope.pass(100)
      scope.answer(`w${round}`)
    }
    scope.call('a')
    scope.call('b')
    // A turn in 50 ms and 100 ms in the function, the next one 50 ms later; and a quarter more.
    const rows = [180, 190, 240, 260].map((deadlineMs, index) =>
      scope.call(`c${index}`, { deadlineMs }),
    )
    assert.deepEqual(
      rows.map(({ outcome }) => outcome),
      ['FUNCTION_SATURATED', 'open', 'FUNCTION_SATURATED', 'open'],
    )
  })

  it('a function that was slow once is taken for quick again after a few calls', () => {
    const scope = new LaneScope({ concurrency: 1, timeoutMs: 5_000 })
    scope.attached()
    const served = (id: string, ms: number): void => {
      scope.call(id)
      scope.requests()
      scope.pass(ms)
      scope.answer(id)
    }
    served('slow', 4_000)
    scope.call('a')
    assert.equal(scope.call('b').outcome, 'FUNCTION_SATURATED')
    scope.answer('a')
    for (let index = 0; index < 4; index += 1) served(`quick${index}`, 10)
    scope.call('c')
    assert.equal(scope.call('d').outcome, 'open')
  })

  it('while more handlers may come, calls wait for them', () => {
    const scope = new LaneScope({ concurrency: 1, timeoutMs: 150 })
    scope.attached()
    scope.call('first')
    scope.requests()
    scope.pass(100)
    scope.answer('first')
    scope.call('busy')
    scope.lane.alarmAbove(1)
    assert.equal(scope.call('a').outcome, 'open')
    assert.equal(scope.demands, 1)
    assert.equal(scope.call('b').outcome, 'open')
    scope.lane.alarmAbove(Number.POSITIVE_INFINITY)
    assert.equal(scope.call('c').outcome, 'FUNCTION_SATURATED')
  })

  it('a call that finds room is never refused for its deadline', () => {
    const scope = new LaneScope({ concurrency: 1 })
    scope.attached()
    scope.call('slow')
    scope.requests()
    scope.pass(500)
    scope.answer('slow')
    assert.equal(scope.call('a', { deadlineMs: 1 }).outcome, 'open')
  })
})
