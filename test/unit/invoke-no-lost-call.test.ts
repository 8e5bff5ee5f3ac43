import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { LaneScope } from '#test/lane-scope.ts'
import type { Watched } from '#test/lane-scope.ts'
import type { MemoryRunner } from '#test/memory-runner.ts'

type Step =
  | { readonly do: 'call'; readonly deadlineMs: number }
  | { readonly do: 'attach' | 'drain' | 'end' | 'reattach'; readonly which: number }
  | { readonly do: 'answer' | 'fail' | 'begin' | 'abort'; readonly which: number }
  | { readonly do: 'pass'; readonly ms: number }
  | { readonly do: 'starting' | 'unavailable' | 'hostile' }

const which = fc.nat(20)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('call'),
      deadlineMs: fc.integer({ min: 1, max: 3_000 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('attach', 'drain', 'end', 'reattach'), which }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constantFrom('answer', 'fail', 'begin', 'abort'), which }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('pass'), ms: fc.integer({ min: 1, max: 1_500 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom('starting', 'unavailable', 'hostile') }),
  },
)

class Run {
  readonly scope = new LaneScope({ concurrency: 2, queue: 4, timeoutMs: 2_000 })
  readonly calls: Watched[] = []
  readonly aborts: AbortController[] = []
  readonly attached: MemoryRunner[] = []
  readonly drained: MemoryRunner[] = []

  apply(now: Step): void {
    const { scope } = this
    switch (now.do) {
      case 'call': {
        const abort = new AbortController()
        this.aborts.push(abort)
        const id = `c${this.calls.length}`
        this.calls.push(scope.call(id, { deadlineMs: now.deadlineMs }, abort.signal))
        break
      }
      case 'attach':
        if (this.attached.length < 4) this.attached.push(scope.attached())
        break
      case 'reattach': {
        const [runner] = take(this.drained, now.which)
        if (runner === undefined || runner.link.state === 'closed') break
        scope.lane.attach(runner.link, 'r1-0a1b2c3d')
        this.attached.push(runner)
        break
      }
      case 'drain': {
        const [runner] = take(this.attached, now.which)
        if (runner === undefined) break
        void scope.lane.drain(runner.link, 60_000)
        this.drained.push(runner)
        break
      }
      case 'end':
        take(this.attached, now.which)[0]?.end()
        break
      case 'answer':
      case 'fail':
      case 'begin':
        this.#runnerSide(now.do, now.which)
        break
      case 'abort':
        this.aborts[now.which % Math.max(1, this.aborts.length)]?.abort()
        break
      case 'pass':
        scope.pass(now.ms)
        break
      case 'starting':
        scope.lane.setStarting()
        break
      case 'unavailable':
        scope.lane.setUnavailable({ code: 'HANDLER_START', message: 'no' })
        break
      case 'hostile':
        for (let id = 100; id < 170; id += 1) this.attached[0]?.answer(id)
    }
  }

  #runnerSide(what: 'answer' | 'fail' | 'begin', index: number): void {
    const ids = this.scope.requests()
    const id = ids[index % Math.max(1, ids.length)]
    if (id === undefined) return
    if (what === 'answer') this.scope.answer(id)
    else this.scope.fail(id, what === 'fail' ? 0 : 3)
  }

  /** Everything ends: whatever is still open has to get its outcome now. */
  async finish(): Promise<void> {
    for (const runner of this.scope.runners) runner.end()
    await this.scope.router.close(0)
  }
}

function take<T>(list: T[], index: number): T[] {
  return list.length === 0 ? [] : list.splice(index % list.length, 1)
}

it('each call gets exactly one outcome, whatever links and callers do, and nothing stays behind', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
      const run = new Run()
      for (const now of steps) {
        run.apply(now)
        for (const call of run.calls) assert(call.outcomes.length <= 1)
        const { inFlight, queued } = run.scope.lane.stats().calls
        const onLinks = run.scope.runners.reduce((sum, { link }) => sum + link.inFlight, 0)
        assert.equal(inFlight, onLinks)
        assert(queued <= 6)
      }
      await run.finish()
      for (const call of run.calls) assert.equal(call.outcomes.length, 1)
      const { calls } = run.scope.lane.stats()
      const ended = calls.ok + calls.failed + calls.refused + calls.timedOut + calls.cancelled
      assert.deepEqual([ended, calls.inFlight, calls.queued], [run.calls.length, 0, 0])
    }),
    { numRuns: 400 },
  )
})
