import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import type { Assignment, FunctionSettings } from '#shared/schemas/command.ts'
import { eventually } from '#test/eventually.ts'
import { asleep, bed, clock, deploy, outcome, reportOf, type Bed } from '#test/memory-bed.ts'
import { answering, assignmentOf, reported } from '#test/reconcile-scope.ts'
import { tempFolder } from '#test/temp.ts'

// Runtime images that come, go and come back, on an engine that does as it is told.

const NO_SPACE = new Fault('HANDLER_START', 'no space left on device')

/** Deploys `f`, makes its image anew, which then does not start, and puts the one before back. */
async function putBack(node: Bed, settings: Partial<FunctionSettings>): Promise<Assignment> {
  const { engine } = node
  const assignment = await deploy(node, settings)
  engine.before = () => {
    throw NO_SPACE
  }
  engine.image = 'new'
  node.reconciler.setDesired([assignment])
  await reported(node, 'f', 'failed')
  engine.before = () => {}
  engine.image = 'memory'
  node.reconciler.setDesired([assignment])
  await reported(node, 'f', 'ready')
  return assignment
}

/** Deploys `f`, lets it sleep, and takes its image away for as long as it takes to see that. */
async function asleepWithoutImage(node: Bed): Promise<Assignment> {
  const assignment = await deploy(node, { replicas: 0, idleMs: 50 })
  await asleep(node)
  node.engine.image = undefined
  node.reconciler.setDesired([assignment])
  await reported(node, 'f', 'failed')
  return assignment
}

describe('a runtime image that is put back because the next one does not start', () => {
  it('has proved itself: its function sleeps', async (context) => {
    await using folder = await tempFolder()
    const pass = clock(context)
    await using node = await bed(folder.path)
    const assignment = await putBack(node, { replicas: 0, idleMs: 60_000 })
    pass(61_000)
    node.reconciler.setDesired([assignment])
    await asleep(node)
  })

  it('has proved itself: the next release, when it fails, falls back to it', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    await putBack(node, {})
    const next = await assignmentOf(node.source, 'f', answering('next'))
    node.source.failure = new Fault('ARTIFACT_UNAVAILABLE', 'the controller has it no more')
    node.reconciler.setDesired([next])
    await eventually(() => (reportOf(node).failures ?? 0) > 0)
    node.engine.kill()
    await eventually(() => reportOf(node).handlers.restarts === 1)
    assert.equal(await outcome(node), 'ok')
  })
})

describe('runtime images that cannot be read for a moment', () => {
  it('wake nobody, and nobody who sleeps is given up', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    const { engine } = node
    const one = await asleepWithoutImage(node)
    assert.equal(await outcome(node), 'FUNCTION_UNAVAILABLE')
    engine.image = 'memory'
    node.reconciler.setDesired([one])
    await reported(node, 'f', 'ready')
    await node.reconciler.settled(AbortSignal.timeout(60_000))
    assert.deepEqual(engine.asked, { start: 1, pause: 1, unpause: 0 })
    assert.equal(reportOf(node).handlers.paused, 1)
    assert.equal(await outcome(node), 'ok')
    assert.equal(engine.asked.unpause, 1)
  })

  it('but one that is new after that has to show that it runs', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    const { engine } = node
    const one = await asleepWithoutImage(node)
    engine.image = 'new'
    node.reconciler.setDesired([one])
    await eventually(() => engine.asked.start === 2)
    await asleep(node)
  })
})
