import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import { TYPE, frameBytes, responseBytes } from '#test/frame-peer.ts'
import { LaneScope } from '#test/lane-scope.ts'

describe('admission', () => {
  it('calls up to the concurrency are sent, then queued in order, then refused at once with a hint', () => {
    const scope = new LaneScope({ concurrency: 2, queue: 2 })
    scope.attached()
    const calls = ['a', 'b', 'c', 'd', 'e'].map((id) => scope.call(id))
    assert.deepEqual(scope.requests(), ['a', 'b'])
    assert.deepEqual(
      calls.map(({ outcome }) => outcome),
      ['open', 'open', 'open', 'open', 'FUNCTION_SATURATED'],
    )
    const refused = calls[4]?.outcomes[0]
    assert(refused instanceof Fault)
    assert(Number(refused.details['retryAfterMs']) > 0)
    assert.deepEqual(pick(scope, 'inFlight', 'queued', 'refused'), [2, 2, 1])

    scope.answer('b')
    assert.deepEqual(scope.requests(), ['a', 'c'])
    scope.answer('a')
    assert.deepEqual(scope.requests(), ['c', 'd'])
  })

  it('a new call does not overtake one that waits', () => {
    const scope = new LaneScope({ concurrency: 1 })
    const runner = scope.attached()
    scope.call('a')
    scope.call('b')
    scope.lane.attach(scope.runner().link, 'r2-0a1b2c3d')
    assert.deepEqual(scope.requests(), ['a', 'b'])
    scope.call('c')
    runner.end()
    assert.deepEqual(scope.requests(), ['a', 'b'])
  })

  it('the link with the lowest share of its concurrency in use gets the next call', () => {
    const scope = new LaneScope()
    const small = scope.attached('r1-0a1b2c3d', 2)
    const large = scope.attached('r1-0a1b2c3d', 8)
    for (let index = 0; index < 10; index += 1) scope.call(`c${index}`)
    assert.deepEqual([small.link.inFlight, large.link.inFlight], [2, 8])
    scope.requests()
    const onSmall = [...scope.seen].filter(([, { runner }]) => runner === small)
    for (const [id] of onSmall) scope.answer(id)
    scope.call('next')
    assert.equal(small.link.inFlight, 1)
  })

  it('while nothing is attached calls wait, as many as queue and one handler take', () => {
    const scope = new LaneScope({ concurrency: 2, queue: 1 })
    const calls = ['a', 'b', 'c', 'd'].map((id) => scope.call(id))
    assert.deepEqual(
      calls.map(({ outcome }) => outcome),
      ['open', 'open', 'open', 'FUNCTION_SATURATED'],
    )
    scope.attached()
    assert.deepEqual(scope.requests(), ['a', 'b'])
  })

  it('an unavailable function refuses with its reason, those that wait too, until a link is attached', () => {
    const scope = new LaneScope()
    const waiting = scope.call('a')
    scope.lane.setUnavailable({ code: 'FUNCTION_LOAD', message: 'SyntaxError: no' })
    assert.equal(waiting.outcome, 'FUNCTION_UNAVAILABLE')
    const refused = scope.call('b')
    const [fault] = refused.outcomes
    assert(fault instanceof Fault)
    assert.equal(fault.message, 'echo: SyntaxError: no')
    assert.equal(fault.details['reason'], 'FUNCTION_LOAD')
    scope.lane.setStarting()
    assert.equal(scope.call('c').outcome, 'open')
    scope.attached()
    assert.deepEqual(scope.requests(), ['c'])
  })

  it('a function that is unavailable while an older release still serves goes on serving', () => {
    const scope = new LaneScope({ concurrency: 1 })
    const old = scope.attached()
    scope.lane.setUnavailable({ code: 'FUNCTION_LOAD', message: 'no' })
    assert.equal(scope.call('a').outcome, 'open')
    const waiting = scope.call('waiting')
    assert.equal(waiting.outcome, 'open')
    old.end()
    assert.equal(waiting.outcome, 'FUNCTION_UNAVAILABLE')
    assert.equal(scope.call('b').outcome, 'FUNCTION_UNAVAILABLE')
  })

  it('what cannot be sent is refused and leaves nothing behind', () => {
    const scope = new LaneScope({ bodyBytesMax: 10 })
    const runner = scope.attached()
    const rows = [
      scope.call('a', { body: Buffer.alloc(11) }),
      scope.call('b', { headers: ['x', 'a\nb'] }),
      scope.call('c', { path: '/a\nb' }),
      scope.call('d', { headers: ['x', 'y'.repeat(65_536)] }),
      scope.call('e', { headers: ['x', '温'.repeat(22_000)] }),
    ]
    assert.deepEqual(
      rows.map(({ outcome }) => outcome),
      ['BODY_TOO_LARGE', ...Array.from({ length: 4 }, () => 'REQUEST_INVALID')],
    )
    assert.equal(runner.link.inFlight, 0)
    assert.equal(runner.received().length, 0)
    assert.equal(scope.wheel.armed, 0)
  })
})

describe('outcomes', () => {
  const rows = [
    { kind: 0, text: 'Error: no\n    at fn', code: 'FUNCTION_ERROR', message: 'Error: no' },
    { kind: 0, text: '', code: 'FUNCTION_ERROR', message: 'The function failed without a word' },
    { kind: 1, text: 'loading', code: 'FUNCTION_UNAVAILABLE', message: 'loading' },
    { kind: 2, text: 'no JSON', code: 'FUNCTION_BAD_ANSWER', message: 'no JSON' },
    { kind: 3, text: 'stopped', code: 'FUNCTION_ERROR', message: 'stopped' },
    { kind: 4, text: 'too many', code: 'FUNCTION_SATURATED', message: 'too many' },
    { kind: 5, text: 'it ended', code: 'FUNCTION_EXITED', message: 'it ended' },
    { kind: 9, text: 'later', code: 'FUNCTION_ERROR', message: 'later' },
  ] as const
  for (const { kind, text, code, message } of rows) {
    it(`ERROR of kind ${kind} with ${JSON.stringify(text)} is ${code}`, () => {
      const scope = new LaneScope()
      scope.attached()
      const call = scope.call('a')
      scope.fail('a', kind, text)
      const [fault] = call.outcomes
      assert(fault instanceof Fault)
      assert.deepEqual([fault.code, fault.message], [code, message])
      assert.equal(fault.details['text'], text.includes('\n') ? text : undefined)
    })
  }

  it('in tinyfaas mode a function error is a success with its text, and counted as failed', () => {
    const scope = new LaneScope({ errors: 'tinyfaas' })
    scope.attached()
    const call = scope.call('a')
    scope.fail('a', 0, 'Error: no\n    at fn')
    assert.deepEqual(call.outcomes, [
      {
        status: 200,
        headers: ['content-type', 'text/plain; charset=utf-8'],
        body: Buffer.from('Error: no\n    at fn'),
      },
    ])
    assert.deepEqual(pick(scope, 'ok', 'failed'), [0, 1])
  })

  it('answers are counted by their status', () => {
    const scope = new LaneScope()
    scope.attached()
    for (const status of [200, 404, 500, 599]) {
      scope.call(String(status))
      scope.answer(String(status), '', status)
    }
    assert.deepEqual(pick(scope, 'ok', 'failed', 'inFlight'), [2, 2, 0])
    assert.equal(scope.lane.stats().latencyMs?.max, 0)
  })

  it('each answer has its own headers, also when another of the same length came before', () => {
    const scope = new LaneScope()
    const runner = scope.attached()
    const headers: unknown[] = []
    for (const head of ['a', 'b', 'b', 'a']) {
      const call = scope.call(head)
      const [request] = runner.received()
      runner.send(responseBytes(request?.id ?? 0, '', { headers: ['x', head] }))
      const [result] = call.outcomes
      headers.push(result instanceof Fault ? result.code : result?.headers)
    }
    assert.deepEqual(headers, [
      ['x', 'a'],
      ['x', 'b'],
      ['x', 'b'],
      ['x', 'a'],
    ])
  })

  it('calls on a link that ends get FUNCTION_EXITED at once; those that wait go to another', () => {
    const scope = new LaneScope({ concurrency: 1 })
    const first = scope.attached()
    const sent = scope.call('a')
    const waiting = scope.call('b')
    first.end()
    assert.equal(sent.outcome, 'FUNCTION_EXITED')
    assert.equal(waiting.outcome, 'open')
    scope.attached()
    scope.answer('b')
    assert.equal(waiting.outcome, 'ok 200')
  })
})

describe('deadlines', () => {
  it('the shorter of the function’s and the caller’s limit counts', () => {
    const scope = new LaneScope({ timeoutMs: 500 })
    scope.attached()
    const short = scope.call('short', { deadlineMs: 100 })
    const long = scope.call('long', { deadlineMs: 9_000 })
    const odd = scope.call('odd', { deadlineMs: Number.NaN })
    scope.pass(90)
    assert.equal(short.outcome, 'open')
    scope.pass(30)
    assert.equal(short.outcome, 'DEADLINE_EXCEEDED')
    assert.equal(long.outcome, 'open')
    scope.pass(400)
    assert.deepEqual([long.outcome, odd.outcome], ['DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED'])
  })

  it('the function hears of no more time than it has, whatever the clock showed', () => {
    const scope = new LaneScope({ timeoutMs: 100, concurrency: 100 })
    const runner = scope.attached()
    for (let index = 0; index < 100; index += 1) {
      scope.pass(0.1)
      scope.call(String(index))
    }
    const told = runner.received().map(({ payload }) => payload.readUInt32BE(0))
    assert.deepEqual(told, Array(100).fill(100))
  })

  it('waiting counts: a call that was not sent in time is never sent', () => {
    const scope = new LaneScope({ concurrency: 1, timeoutMs: 300 })
    scope.attached()
    scope.call('a', { deadlineMs: 200 })
    const waiting = scope.call('b', { deadlineMs: 100 })
    scope.pass(120)
    assert.equal(waiting.outcome, 'DEADLINE_EXCEEDED')
    scope.answer('a')
    assert.deepEqual(scope.requests(), [])
    assert.deepEqual(pick(scope, 'ok', 'timedOut', 'inFlight', 'queued'), [1, 1, 0, 0])
  })

  it('an overrun call is answered and cancelled at once; its place is free when the runner has ended it', () => {
    const scope = new LaneScope({ concurrency: 1, timeoutMs: 100 })
    const runner = scope.attached()
    const call = scope.call('a')
    scope.pass(120)
    assert.equal(call.outcome, 'DEADLINE_EXCEEDED')
    assert.equal(scope.cancelled('a'), true)
    const waiting = scope.call('b')
    assert.equal(runner.link.inFlight, 1)
    scope.fail('a', 3)
    assert.deepEqual(scope.requests(), ['b'])
    scope.answer('b')
    assert.equal(waiting.outcome, 'ok 200')
    scope.pass(2_000)
    assert.equal(scope.overruns.length, 0)
    assert.equal(scope.wheel.armed, 0)
  })

  it('a runner that has not ended a call a second after its deadline is reported, once', () => {
    const scope = new LaneScope({ timeoutMs: 100 })
    const runner = scope.attached()
    scope.call('a')
    scope.call('b')
    scope.pass(1_080)
    assert.equal(scope.overruns.length, 0)
    scope.pass(100)
    assert.deepEqual(scope.overruns, [runner.link])
  })

  it('a caller’s short deadline cancels the call; the function has its own time to notice, from when it got it', () => {
    const scope = new LaneScope({ timeoutMs: 5_000, concurrency: 1 })
    const runner = scope.attached()
    scope.call('a', { deadlineMs: 9_000 })
    scope.pass(3_000)
    const call = scope.call('b', { deadlineMs: 1_500 })
    scope.pass(1_000)
    scope.answer('a')
    scope.pass(600)
    assert.equal(call.outcome, 'DEADLINE_EXCEEDED')
    assert.equal(scope.cancelled('b'), true)
    scope.pass(5_300)
    assert.equal(scope.overruns.length, 0)
    scope.pass(200)
    assert.deepEqual(scope.overruns, [runner.link])
  })

  it('a caller who goes cancels the call; the function has until the deadline to notice', () => {
    const scope = new LaneScope({ timeoutMs: 5_000 })
    const runner = scope.attached()
    const gone = new AbortController()
    const call = scope.call('a', {}, gone.signal)
    scope.requests()
    gone.abort()
    assert.equal(call.outcome, 'CALLER_GONE')
    assert.equal(scope.cancelled('a'), true)
    scope.pass(4_900)
    assert.equal(scope.overruns.length, 0)
    scope.pass(1_300)
    assert.deepEqual(scope.overruns, [runner.link])
    assert.deepEqual(pick(scope, 'cancelled'), [1])
  })

  it('a caller who goes while the call waits takes it out of the queue', () => {
    const scope = new LaneScope({ concurrency: 1 })
    scope.attached()
    scope.call('a')
    const gone = new AbortController()
    const waiting = scope.call('b', {}, gone.signal)
    scope.call('c')
    gone.abort()
    scope.answer('a')
    assert.equal(waiting.outcome, 'CALLER_GONE')
    assert.deepEqual(scope.requests(), ['c'])
    assert.equal(scope.call('d', {}, gone.signal).outcome, 'CALLER_GONE')
  })

  it('a loop that does not answer PING gets no calls while another link has room', () => {
    const scope = new LaneScope({ timeoutMs: 60_000 })
    const blocked = scope.attached()
    scope.call('a')
    const other = scope.attached()
    for (const id of ['b', 'c']) scope.call(id)
    scope.pass(2_100)
    const pings = blocked.received().filter(({ type }) => type === TYPE.ping)
    assert.equal(pings.length, 1)
    other.send(frameBytes(TYPE.pong, 1))
    scope.pass(1_100)
    assert.deepEqual([blocked.link.blocked, other.link.blocked], [true, false])
    for (const id of ['d', 'e', 'f']) scope.call(id)
    assert.deepEqual([blocked.link.inFlight, other.link.inFlight], [2, 4])
    blocked.send(frameBytes(TYPE.pong, pings[0]?.id ?? 0))
    scope.call('g')
    assert.equal(blocked.link.inFlight, 3)
  })
})

describe('drain', () => {
  it('resolves when the calls in flight have ended, and no new ones are sent', async () => {
    const scope = new LaneScope()
    const old = scope.attached('r1-0a1b2c3d')
    const call = scope.call('a')
    scope.attached('r2-0a1b2c3d')
    assert.deepEqual(scope.lane.serving(), ['r1-0a1b2c3d', 'r2-0a1b2c3d'])
    const drained = scope.lane.drain(old.link, 60_000)
    assert.deepEqual(scope.lane.serving(), ['r2-0a1b2c3d'])
    for (let index = 0; index < 5; index += 1) scope.call(`c${index}`)
    assert.equal(old.link.inFlight, 1)
    scope.answer('a')
    await drained
    assert.equal(call.outcome, 'ok 200')
  })

  it('resolves at once when nothing is in flight, for a stranger, at the timeout, and when the link ends', async () => {
    const scope = new LaneScope()
    await scope.lane.drain(scope.runner().link, 60_000)
    const idle = scope.attached()
    await scope.lane.drain(idle.link, 60_000)
    const slow = scope.attached()
    scope.call('a')
    await scope.lane.drain(slow.link, 5)
    assert.equal(slow.link.inFlight, 1)
    const dying = scope.attached()
    const call = scope.call('b')
    const drained = scope.lane.drain(dying.link, 60_000)
    dying.end()
    await drained
    assert.equal(call.outcome, 'FUNCTION_EXITED')
  })

  it('a link that drains can be attached again: an undo before the switch is complete', () => {
    const scope = new LaneScope()
    const runner = scope.attached('r1-0a1b2c3d')
    scope.call('a')
    void scope.lane.drain(runner.link, 60_000)
    assert.equal(scope.call('b').outcome, 'open')
    assert.deepEqual(scope.requests(), ['a'])
    scope.lane.attach(runner.link, 'r1-0a1b2c3d')
    assert.deepEqual(scope.requests(), ['a', 'b'])
  })
})

function pick(scope: LaneScope, ...keys: (keyof ReturnType<typeof countsOf>)[]): number[] {
  const counts = countsOf(scope)
  return keys.map((key) => counts[key])
}

function countsOf(scope: LaneScope) {
  return scope.lane.stats().calls
}
