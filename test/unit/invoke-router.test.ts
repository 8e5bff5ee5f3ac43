import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import { TimerWheel } from '#agent/invoke/lane/index.ts'
import { eventually } from '#test/eventually.ts'
import { LANE_SETTINGS, invocation } from '#test/invoke-scope.ts'
import { LaneScope } from '#test/lane-scope.ts'

function router(...names: readonly string[]): InvokeRouter {
  const made = new InvokeRouter({
    log: { info: () => {}, warn: () => {} },
    wheel: new TimerWheel({ ticking: false }),
  })
  for (const name of names) made.ensure(name, LANE_SETTINGS)
  return made
}

describe('match finds the longest name of at most four segments', () => {
  const rows = [
    ['sieve', 'sieve', ''],
    ['sieve/', 'sieve', '/'],
    ['sieve/a/b', 'sieve', '/a/b'],
    ['site/thermo', 'site/thermo', ''],
    ['site/thermo/x', 'site/thermo', '/x'],
    ['site/other', 'site', '/other'],
    ['a/b/c/d', 'a/b/c/d', ''],
    ['a/b/c/d/e/f', 'a/b/c/d', '/e/f'],
    ['a/b/c/d/', 'a/b/c/d', '/'],
    ['a/b/c', undefined, ''],
    ['siev', undefined, ''],
    ['sievex', undefined, ''],
    ['', undefined, ''],
    ['/', undefined, ''],
    ['/sieve', undefined, ''],
    ['__proto__', undefined, ''],
    ['sieve//a', 'sieve', '//a'],
  ] as const
  const made = router('sieve', 'site', 'site/thermo', 'a/b/c/d')
  for (const [path, fn, rest] of rows) {
    it(`${JSON.stringify(path)} is ${fn ?? 'nothing'}`, () => {
      assert.deepEqual(made.match(path), fn === undefined ? undefined : { fn, rest })
    })
  }

  it('names are sorted, and gone when removed', () => {
    const changing = router('b', 'a', 'c')
    changing.remove('b')
    changing.remove('never')
    assert.deepEqual(changing.names(), ['a', 'c'])
    assert.equal(changing.match('b'), undefined)
  })
})

describe('functions come and go', () => {
  it('an unknown function is FUNCTION_UNKNOWN', async () => {
    await assert.rejects(router().invoke(invocation()), (e) => Fault.is(e, 'FUNCTION_UNKNOWN'))
    await assert.rejects(router().accept(invocation()), (e) => Fault.is(e, 'FUNCTION_UNKNOWN'))
  })

  it('removal refuses what waits and lets finish what is in flight', () => {
    const scope = new LaneScope({ concurrency: 1 })
    scope.attached()
    const sent = scope.call('a')
    const waiting = scope.call('b')
    scope.router.remove('echo')
    assert.equal(waiting.outcome, 'FUNCTION_UNKNOWN')
    scope.answer('a')
    assert.equal(sent.outcome, 'ok 200')
    assert.equal(scope.call('c').outcome, 'FUNCTION_UNKNOWN')
  })

  it('ensure of a known name changes its settings and keeps its lane', () => {
    const scope = new LaneScope({ concurrency: 1, queue: 0 })
    scope.attached()
    scope.call('a')
    assert.equal(scope.call('b').outcome, 'FUNCTION_SATURATED')
    const lane = scope.router.ensure('echo', { ...LANE_SETTINGS, queue: 1 })
    assert.equal(lane, scope.lane)
    assert.equal(scope.call('c').outcome, 'open')
  })

  it('close refuses new calls, waits for those in flight and in the queue, and ends the rest', async () => {
    const scope = new LaneScope({ concurrency: 1 })
    scope.attached()
    const first = scope.call('a')
    const second = scope.call('b')
    const closing = scope.router.close(60_000)
    assert.equal(scope.call('c').outcome, 'SHUTTING_DOWN')
    scope.answer('a')
    scope.answer('b')
    await closing
    assert.deepEqual([first.outcome, second.outcome], ['ok 200', 'ok 200'])

    const impatient = new LaneScope({ concurrency: 1 })
    impatient.attached()
    const calls = [impatient.call('a'), impatient.call('b')]
    impatient.requests()
    await impatient.router.close(5)
    assert.deepEqual(
      calls.map(({ outcome }) => outcome),
      ['SHUTTING_DOWN', 'SHUTTING_DOWN'],
    )
    assert.equal(impatient.cancelled('a'), true)
  })
})

describe('calls in the background', () => {
  it('are accepted when they are in the lane, then counted and logged by their outcome', async () => {
    const scope = new LaneScope()
    scope.attached()
    await scope.router.accept(invocation({ requestId: 'a', protocol: 'async' }))
    await scope.router.accept(invocation({ requestId: 'b', protocol: 'async' }))
    await scope.router.accept(invocation({ requestId: 'c', protocol: 'async' }))
    scope.answer('a')
    scope.fail('b')
    scope.answer('c', '', 503)
    await eventually(() => scope.logged.length === 3)
    const { asyncAccepted, asyncDone, asyncFailed } = scope.lane.stats().calls
    assert.deepEqual([asyncAccepted, asyncDone, asyncFailed], [3, 1, 2])
    const byRequest = Object.fromEntries(
      scope.logged.map((fields) => [Reflect.get(fields, 'request'), fields]),
    )
    assert.deepEqual(byRequest, {
      a: { fn: 'echo', request: 'a', status: 200 },
      b: { fn: 'echo', request: 'b', code: 'FUNCTION_ERROR', reason: 'Error: no' },
      c: { fn: 'echo', request: 'c', status: 503 },
    })
  })

  it('have their body read first, so that the caller may go', async () => {
    const scope = new LaneScope()
    const runner = scope.attached()
    await scope.router.accept(
      invocation({ body: Readable.from([Buffer.from('a'), Buffer.from('b')]) }),
    )
    const [request] = runner.received()
    assert.equal(request?.payload.subarray(-2).toString(), 'ab')
    assert.equal(request?.flags, 1)
  })

  it('are bounded by number and by bytes, and a refused one gives its place back', async () => {
    const scope = new LaneScope({ bodyBytesMax: 10 }, { asyncMax: 1 })
    scope.attached()
    const refused = [
      { fields: { body: Buffer.alloc(11) }, code: 'BODY_TOO_LARGE' },
      { fields: { body: Readable.from([Buffer.alloc(11)]) }, code: 'BODY_TOO_LARGE' },
      { fields: { headers: ['x', '\n'] }, code: 'REQUEST_INVALID' },
    ] as const
    for (const { fields, code } of refused) {
      await assert.rejects(scope.router.accept(invocation(fields)), (e) => Fault.is(e, code))
    }
    await scope.router.accept(invocation({ requestId: 'a' }))
    const full = scope.router.accept(invocation())
    await assert.rejects(full, (e) => Fault.is(e, 'FUNCTION_SATURATED'))
    scope.answer('a')
    await eventually(() => scope.logged.length === 1)
    await scope.router.accept(invocation({ requestId: 'b' }))
    assert.equal(scope.lane.stats().calls.asyncAccepted, 2)

    const bytes = new LaneScope({}, { asyncBytesMax: 100 })
    const large = bytes.router.accept(invocation({ body: Buffer.alloc(101) }))
    await assert.rejects(large, (e) => Fault.is(e, 'FUNCTION_SATURATED'))
    await bytes.router.accept(invocation({ body: Buffer.alloc(100) }))
  })
})
