import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { LaneScope } from '#test/lane-scope.ts'

describe('demand', () => {
  it('tells what is in flight and waits, and the most there were since it was asked last', () => {
    const scope = new LaneScope({ concurrency: 2 })
    assert.deepEqual(scope.lane.takeDemand(), {
      inFlight: 0,
      waiting: 0,
      peak: 0,
      lastCallAtMs: undefined,
    })
    scope.attached()
    for (const id of ['a', 'b', 'c']) scope.call(id)
    scope.requests()
    scope.pass(50)
    scope.answer('a')
    scope.requests()
    scope.pass(20)
    assert.deepEqual(scope.lane.takeDemand(), {
      inFlight: 2,
      waiting: 0,
      peak: 3,
      lastCallAtMs: 1_050,
    })
    scope.answer('b')
    scope.answer('c')
    assert.equal(scope.lane.takeDemand().peak, 2, 'what was there when it was asked last counts')
    assert.equal(scope.lane.takeDemand().peak, 0)
  })

  it('calls back once when a call has to wait and there are more than was said', () => {
    const scope = new LaneScope({ concurrency: 2 })
    scope.call('nobody has asked')
    assert.equal(scope.demands, 0)
    scope.attached()
    scope.lane.alarmAbove(3)
    scope.call('runs')
    scope.call('waits')
    assert.equal(scope.demands, 0)
    scope.call('is one more')
    assert.equal(scope.demands, 1)
    scope.call('is not told')
    assert.equal(scope.demands, 1)
    scope.lane.alarmAbove(0)
    scope.call('is told again')
    assert.equal(scope.demands, 2)
  })

  it('a call that finds room wakes nobody', () => {
    const scope = new LaneScope({ concurrency: 2 })
    scope.attached()
    scope.lane.alarmAbove(0)
    scope.call('a')
    assert.equal(scope.demands, 0)
  })
})

describe('a link that is attached for some calls', () => {
  it('takes so many, then drains by itself; the next call waits for another link', async () => {
    const scope = new LaneScope()
    const once = scope.attached('r1-0a1b2c3d', 1, 1)
    const calls = ['a', 'b'].map((id) => scope.call(id))
    assert.deepEqual(scope.requests(), ['a'])
    assert.deepEqual(scope.spent, [once.link])
    assert.deepEqual(scope.lane.links, [])
    let isDrained = false
    const drained = scope.lane.drain(once.link, 60_000).then(() => (isDrained = true))
    await Promise.resolve()
    assert.equal(isDrained, false, 'its call is still there')
    scope.answer('a')
    await drained
    assert.deepEqual(scope.requests(), [], 'it gets no other')
    scope.attached('r1-0a1b2c3d', 1, 1)
    assert.deepEqual(scope.requests(), ['b'])
    scope.answer('b')
    assert.deepEqual(
      calls.map(({ outcome }) => outcome),
      ['ok 200', 'ok 200'],
    )
  })

  it('takes the calls that wait when it is attached, not one more', () => {
    const scope = new LaneScope()
    for (const id of ['a', 'b', 'c']) scope.call(id)
    scope.attached('r1-0a1b2c3d', 8, 2)
    assert.deepEqual(scope.requests(), ['a', 'b'])
    assert.equal(scope.spent.length, 1)
  })

  it('is not used up by a call that cannot be sent', () => {
    const scope = new LaneScope()
    const once = scope.attached('r1-0a1b2c3d', 1, 1)
    const tooLong = scope.call('a', { path: `/${'x'.repeat(65_535)}` })
    const twoLines = scope.call('b', { query: 'a\nb' })
    assert.deepEqual([tooLong.outcome, twoLines.outcome], ['REQUEST_INVALID', 'REQUEST_INVALID'])
    assert.deepEqual(scope.spent, [])
    const call = scope.call('c')
    assert.deepEqual(scope.requests(), ['c'])
    assert.deepEqual(scope.spent, [once.link])
    scope.answer('c')
    assert.equal(call.outcome, 'ok 200')
  })

  it('breaks with its own call only', () => {
    const scope = new LaneScope()
    const [first, second] = [
      scope.attached('r1-0a1b2c3d', 1, 1),
      scope.attached('r1-0a1b2c3d', 1, 1),
    ]
    const calls = ['a', 'b', 'c'].map((id) => scope.call(id))
    scope.requests()
    first.end()
    assert.deepEqual(
      calls.map(({ outcome }) => outcome),
      ['FUNCTION_EXITED', 'open', 'open'],
    )
    assert.equal(second.link.inFlight, 1)
  })

  it('that does not end its call is reported like any other', () => {
    const scope = new LaneScope({ timeoutMs: 1_000 })
    const once = scope.attached('r1-0a1b2c3d', 1, 1)
    const call = scope.call('a')
    scope.requests()
    scope.pass(2_100)
    assert.equal(call.outcome, 'DEADLINE_EXCEEDED')
    assert.deepEqual(scope.overruns, [once.link])
  })

  it('is drained at once when its call has ended before anybody asked', async () => {
    const scope = new LaneScope()
    const once = scope.attached('r1-0a1b2c3d', 1, 1)
    scope.call('a')
    scope.requests()
    scope.answer('a')
    await scope.lane.drain(once.link, 60_000)
    assert.deepEqual(scope.lane.links, [])
  })
})
