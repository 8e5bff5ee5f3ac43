import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { bed, clock, deploy, outcome, reportOf, STABLE_MS } from '#test/memory-bed.ts'
import { tempFolder } from '#test/temp.ts'

// Handlers that do not end a call within the function's time, on an engine that does as it is told.

const NO_SPACE = new Fault('HANDLER_START', 'no space left on device')

describe('a handler that answers nobody', () => {
  it('gets no more calls, however short the timeout of its function is', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    // Shorter than it takes to see that a handler is blocked: a PING after a second, whose answer is a second late.
    await deploy(node, { timeoutMs: 950 })
    const { promise: held, resolve: letGo } = Promise.withResolvers<void>()
    node.engine.before = () => held
    node.engine.hang()
    assert.equal(await outcome(node), 'DEADLINE_EXCEEDED')
    await eventually(() => reportOf(node).handlers.restarts === 1)
    // Only now is it seen that it is more than one call that hangs.
    await sleep(1_500)
    const next = outcome(node)
    letGo()
    assert.equal(await next, 'ok')
    await eventually(() => node.engine.size === 1)
    assert.equal(reportOf(node).handlers.restarts, 1)
  })

  it('is replaced at once when it is the last, though others have failed to join it for long', async (context) => {
    await using folder = await tempFolder()
    const pass = clock(context)
    await using node = await bed(folder.path, { random: () => 1 })
    const one = await deploy(node, { timeoutMs: 200 })
    pass(STABLE_MS + 1_000)
    node.engine.before = () => {
      throw NO_SPACE
    }
    const two = { ...one, settings: { ...one.settings, replicas: 2 } }
    // Up to a pause of a minute: twice as long as is waited below.
    for (let failures = 1; failures <= 10; failures += 1) {
      // Not much longer than the pause, or the failures would be forgotten.
      const { retryAtMs = 0 } = reportOf(node)
      pass(Math.max(0, retryAtMs - Date.now()) + 10)
      node.reconciler.setDesired([two])
      await eventually(() => (reportOf(node).failures ?? 0) >= failures)
    }
    node.engine.before = () => {}
    node.engine.hang()
    assert.equal(await outcome(node), 'DEADLINE_EXCEEDED')
    await eventually(() => reportOf(node).handlers.restarts === 1)
    await eventually(() => reportOf(node).handlers.ready === 2, { timeoutMs: 30_000 })
    // Its time is short for a busy machine.
    await eventually(async () => (await outcome(node)) === 'ok')
  })
})
