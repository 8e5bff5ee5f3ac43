import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { LaneScope } from '#test/lane-scope.ts'

describe('a handler that ends before the answer has begun', () => {
  it('an idempotent call is sent once more, to another handler', () => {
    const scope = new LaneScope({ idempotent: true })
    const first = scope.attached()
    const second = scope.attached()
    const call = scope.call('a', { body: Buffer.from('the body') })
    assert.equal(first.link.inFlight, 1)
    scope.requests()
    first.end()
    assert.equal(call.outcome, 'open')
    assert.equal(second.link.inFlight, 1)
    scope.answer('a', 'done')
    assert.equal(call.outcome, 'ok 200')
    const { ok, failed, retried } = scope.lane.stats().calls
    assert.deepEqual([ok, failed, retried], [1, 0, 1])
  })

  it('so it is when the runner goes on without its program', () => {
    const scope = new LaneScope({ idempotent: true })
    const first = scope.attached()
    const second = scope.attached()
    const call = scope.call('a')
    scope.fail('a', 5, 'it ended')
    assert.deepEqual([first.link.inFlight, second.link.inFlight], [0, 1])
    scope.answer('a')
    assert.equal(call.outcome, 'ok 200')
  })

  it('a second end is the outcome', () => {
    const scope = new LaneScope({ idempotent: true })
    const runners = [scope.attached(), scope.attached(), scope.attached()]
    const call = scope.call('a')
    runners[0]?.end()
    runners[1]?.end()
    assert.equal(call.outcome, 'FUNCTION_EXITED')
    assert.equal(runners[2]?.link.inFlight, 0)
    scope.pass(2_000)
    assert.equal(scope.wheel.armed, 0)
  })

  it('when the others are busy it waits for its turn, until its deadline', () => {
    const scope = new LaneScope({ idempotent: true, concurrency: 1, timeoutMs: 200 })
    const first = scope.attached()
    scope.call('a')
    scope.requests()
    scope.attached()
    scope.call('b')
    scope.requests()
    first.end()
    assert.deepEqual(scope.requests(), ['a', 'b'])
    scope.answer('b')
    assert.equal(scope.requests().length, 1)
    const late = scope.call('c')
    scope.pass(300)
    assert.equal(late.outcome, 'DEADLINE_EXCEEDED')
    assert.equal(scope.lane.stats().calls.timedOut, 2)
  })

  it('when the others are busy and its own goes on, it goes there rather than hold up those behind it', () => {
    const scope = new LaneScope({ idempotent: true, concurrency: 1 })
    const first = scope.attached()
    const again = scope.call('a')
    scope.requests()
    const second = scope.attached()
    scope.call('b')
    scope.requests()
    scope.fail('a', 5, 'it ended')
    assert.deepEqual([first.link.inFlight, second.link.inFlight], [1, 1])
    const behind = scope.call('c')
    scope.answer('a')
    assert.equal(again.outcome, 'ok 200')
    scope.answer('c')
    assert.equal(behind.outcome, 'ok 200')
    assert.equal(scope.lane.stats().calls.retried, 1)
  })

  it('there, too, a second end is the outcome', () => {
    const scope = new LaneScope({ idempotent: true, concurrency: 1 })
    scope.attached()
    const again = scope.call('a')
    scope.requests()
    scope.attached()
    scope.call('b')
    scope.requests()
    for (const text of ['first', 'second']) scope.fail('a', 5, text)
    assert.equal(again.outcome, 'FUNCTION_EXITED')
    assert.deepEqual([again.outcomes.length, scope.lane.stats().calls.retried], [1, 1])
  })

  const rows = [
    { name: 'it is not idempotent', settings: {}, fields: {}, runners: 2 },
    { name: 'there is no other handler', settings: { idempotent: true }, fields: {}, runners: 1 },
    {
      name: 'its body is a stream',
      settings: { idempotent: true },
      fields: { body: Readable.from([Buffer.from('x')]) },
      runners: 2,
    },
  ]
  for (const { name, settings, fields, runners } of rows) {
    it(`${name}: that is the outcome at once`, () => {
      const scope = new LaneScope(settings)
      const [first] = Array.from({ length: runners }, () => scope.attached())
      const call = scope.call('a', fields)
      first?.end()
      assert.equal(call.outcome, 'FUNCTION_EXITED')
      assert.equal(scope.lane.stats().calls.retried, 0)
    })
  }

  it('an answer that has begun is not begun again', () => {
    const scope = new LaneScope({ idempotent: true })
    const first = scope.attached()
    scope.attached()
    const call = scope.call('a')
    const [id] = [...scope.requests()].map((request) => scope.seen.get(request)?.id ?? 0)
    first.send(responseStart(id ?? 0))
    assert.equal(call.outcome, 'ok 200')
    first.end()
    assert.equal(scope.lane.stats().calls.retried, 0)
  })
})

/** RESPONSE 200 without END, with one byte of body. */
function responseStart(id: number): Buffer {
  const frame = Buffer.alloc(17)
  frame.writeUInt32BE(5, 0)
  frame.writeUInt8(0x11, 4)
  frame.writeUInt32BE(id, 8)
  frame.writeUInt16BE(200, 12)
  return frame
}
