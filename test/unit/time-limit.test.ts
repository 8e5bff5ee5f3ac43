import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { limited } from '#agent/handlers/docker/docker-errors.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { collectGarbage } from '#test/collect-garbage.ts'
import { eventually } from '#test/eventually.ts'

const CALLS = 200
const LIMIT_MS = 20

describe('a time limit', () => {
  it('aborts with the error that AbortSignal.timeout has', async () => {
    const signal = timeLimit(1)
    assert.equal(signal.aborted, false)
    await eventually(() => signal.aborted)
    assert.ok(signal.reason instanceof DOMException)
    const expected = AbortSignal.timeout(1)
    await eventually(() => expected.aborted)
    const { name, message, code } = expected.reason
    assert.deepEqual(
      [signal.reason.name, signal.reason.message, signal.reason.code],
      [name, message, code],
    )
  })

  it('leaves nothing once it is over, however deep in other signals calls of the engine have it', async () => {
    const caller = new AbortController()
    const closed = new AbortController()
    const signals: WeakRef<AbortSignal>[] = []
    for (let n = 0; n < CALLS; n += 1) {
      const asked = AbortSignal.any([caller.signal, timeLimit(LIMIT_MS)])
      const either = AbortSignal.any([asked, closed.signal])
      await limited(
        async (signal) => signals.push(new WeakRef(asked), new WeakRef(signal)),
        LIMIT_MS,
        either,
      )
    }
    await sleep(5 * LIMIT_MS)
    collectGarbage()
    await sleep(LIMIT_MS)
    collectGarbage()
    const left = signals.filter((signal) => signal.deref() !== undefined).length
    assert.ok(left < CALLS / 10, `${left} of ${signals.length} signals are left`)
  })
})
