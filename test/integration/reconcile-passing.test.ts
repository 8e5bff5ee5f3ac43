import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { invocation } from '#test/invoke-scope.ts'
import {
  asleep,
  bed,
  clock,
  deploy,
  outcome,
  reportOf,
  STABLE_MS,
  type Bed,
} from '#test/memory-bed.ts'
import { answering, assignmentOf, reported } from '#test/reconcile-scope.ts'
import { tempFolder } from '#test/temp.ts'

// What goes wrong for a moment, or for good, with handlers whose engine does as it is told.

const NO_SPACE = new Fault('HANDLER_START', 'no space left on device')

/** Wants `f` no more while it sleeps; from then on the engine has this answer to everything. */
async function giveUpAsleep(node: Bed, answer: Fault): Promise<void> {
  await deploy(node, { replicas: 0, idleMs: 50 })
  await asleep(node)
  node.engine.before = () => {
    throw answer
  }
  node.reconciler.setDesired([])
}

describe('a start that fails once', () => {
  it('costs a function with a handler for each call no call, and is forgotten with the next one', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    const { engine } = node
    engine.startMs = 200
    engine.callMs = 50
    await deploy(node, { isolation: 'fresh', replicas: 2, replicasMax: 12 })
    await eventually(() => reportOf(node).handlers.ready === 2)
    const failing = engine.asked.start + 1
    engine.before = (asked) => {
      if (asked === 'start' && engine.asked.start === failing) throw NO_SPACE
    }
    const outcomes: Promise<string>[] = []
    for (let calls = 0; calls < 24; calls++) {
      outcomes.push(outcome(node))
      await sleep(125)
    }
    assert.deepEqual(new Set(await Promise.all(outcomes)), new Set(['ok']))
    assert.ok(engine.asked.start > failing)
    assert.equal(reportOf(node).failures, undefined)
  })

  it('is told at once of a function that has never served', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    node.engine.before = () => {
      throw NO_SPACE
    }
    for (const isolation of ['shared', 'fresh'] as const) {
      const one = await assignmentOf(node.source, 'f', answering(isolation), { isolation })
      node.reconciler.setDesired([one], isolation === 'fresh')
      const held = outcome(node)
      assert.equal((await reported(node, 'f', 'failed')).failures, 1)
      assert.equal(await held, 'FUNCTION_UNAVAILABLE')
    }
  })
})

describe('starts that go on failing', () => {
  it('have pauses that grow, however long another handler has served', async (context) => {
    await using folder = await tempFolder()
    const pass = clock(context)
    // The longest pauses: the fifth, 2 s, is how long the fifth failure is remembered below.
    await using node = await bed(folder.path, { random: () => 1 })
    const one = await deploy(node)
    pass(STABLE_MS + 1_000)
    node.engine.before = () => {
      throw NO_SPACE
    }
    const two = { ...one, settings: { ...one.settings, replicas: 2 } }
    node.reconciler.setDesired([two])
    await eventually(() => reportOf(node).failures === 4)
    assert.equal(await outcome(node), 'ok')

    // It tries for longer than it takes to forget: what may fail is no proof.
    const { promise, resolve } = Promise.withResolvers<void>()
    node.engine.before = () => promise.then(() => Promise.reject(NO_SPACE))
    const { start } = node.engine.asked
    await eventually(() => node.engine.asked.start > start)
    pass(STABLE_MS + 1_000)
    node.reconciler.setDesired([two])
    await sleep(50)
    assert.equal(reportOf(node).failures, 4)
    resolve()
    await eventually(() => reportOf(node).failures === 5)

    node.engine.before = () => {}
    pass(STABLE_MS)
    node.reconciler.setDesired([two])
    await eventually(() => reportOf(node).handlers.ready === 2)
    assert.equal(reportOf(node).failures, 5)
    pass(STABLE_MS + 1_000)
    node.reconciler.setDesired([two])
    await eventually(() => reportOf(node).failures === undefined)
  })

  it('end with refusals, also of a function that has served', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    await deploy(node)
    node.engine.before = () => {
      throw NO_SPACE
    }
    node.engine.kill()
    await eventually(() => reportOf(node).state === 'starting')
    const held = outcome(node)
    const { reason } = await reported(node, 'f', 'failed')
    assert.equal(reason?.code, 'HANDLER_START')
    assert.equal(await held, 'FUNCTION_UNAVAILABLE')
    assert.equal(await outcome(node), 'FUNCTION_UNAVAILABLE')
  })
})

describe('handlers that end together', () => {
  it('are one failure, and calls wait for the next of them', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    await deploy(node, { replicas: 6 })
    node.engine.kill()
    await eventually(() => reportOf(node).handlers.restarts === 6)
    assert.equal(reportOf(node).failures, 1)
    assert.equal(await outcome(node), 'ok')
    await eventually(() => reportOf(node).handlers.ready === 6)
  })
})

describe('handlers that calls end', () => {
  it('are started again soon while others serve well, however often that is', async (context) => {
    await using folder = await tempFolder()
    const pass = clock(context)
    await using node = await bed(folder.path)
    await deploy(node, { replicas: 4 })
    await eventually(() => reportOf(node).handlers.ready === 4)
    pass(STABLE_MS + 1_000)
    for (let round = 1; round <= 8; round += 1) {
      node.engine.kill(1)
      await eventually(() => reportOf(node).handlers.restarts === round)
      assert.ok((reportOf(node).failures ?? 0) <= 3, `${reportOf(node).failures} failures`)
      await eventually(() => reportOf(node).handlers.ready === 4)
      pass(3_000)
    }
  })

  it('have the next one at once when others have failed to join them for long', async (context) => {
    await using folder = await tempFolder()
    const pass = clock(context)
    await using node = await bed(folder.path)
    const one = await deploy(node)
    pass(STABLE_MS + 1_000)
    node.engine.before = () => {
      throw NO_SPACE
    }
    node.reconciler.setDesired([{ ...one, settings: { ...one.settings, replicas: 2 } }])
    await eventually(() => reportOf(node).failures === 5)
    node.engine.before = () => {}
    node.engine.kill()
    await eventually(() => reportOf(node).handlers.restarts === 1)
    assert.equal(await outcome(node), 'ok')
  })
})

describe('a handler that does not wake up', () => {
  it('is replaced, and the calls that were held are answered', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path, { timeouts: { resumeMs: 100 } })
    await deploy(node, { replicas: 0, idleMs: 50 })
    await asleep(node)
    node.engine.answersPing = false
    assert.deepEqual(await Promise.all([outcome(node), outcome(node)]), ['ok', 'ok'])
    assert.equal(node.engine.asked.start, 2)
  })

  it('so it is when an earlier agent has put it to sleep', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    const one = await deploy(node, { replicas: 0, idleMs: 50 })
    await asleep(node)
    await node.reconciler.close({ removeHandlers: false })
    const { engine } = node
    engine.before = (asked) => {
      if (asked === 'unpause') throw new Fault('HANDLER_START', 'Docker cannot unpause')
    }
    await using next = { ...(await bed(folder.path, { engine })), engine }
    next.reconciler.setDesired([one], true)
    assert.equal(await outcome(next), 'ok')
    assert.equal(engine.asked.start, 2)
  })

  it('can be removed', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    await giveUpAsleep(node, new Fault('HANDLER_START', 'Docker cannot unpause'))
    await eventually(() => node.engine.size === 0)
    assert.deepEqual(node.complaints, [])
  })

  it('stays while the engine is away', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    await giveUpAsleep(node, new Fault('ENGINE_UNAVAILABLE', 'Docker does not answer'))
    await eventually(() => node.complaints.some((line) => line.startsWith('handler not removed')))
    assert.equal(node.engine.size, 1)
    node.engine.before = () => {}
    await eventually(() => node.engine.size === 0)
  })
})

describe('a handler that cannot be paused', () => {
  it('is removed when the function sleeps, which goes on sleeping', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    node.engine.before = (asked) => {
      if (asked === 'pause') throw new Fault('HANDLER_START', 'Docker cannot pause')
    }
    await deploy(node, { replicas: 0, idleMs: 50 })
    await eventually(() => node.engine.size === 0 && node.engine.asked.pause === 1)
    await sleep(300)
    assert.equal(node.engine.asked.start, 1)
    const { state, failures, handlers } = reportOf(node)
    assert.deepEqual([state, failures, handlers.restarts], ['ready', undefined, 0])
    assert.equal(node.complaints.filter((line) => line.startsWith('handler not paused')).length, 1)
    assert.equal(await outcome(node), 'ok')
    assert.equal(node.engine.asked.start, 2)
  })
})

describe('an agent that comes back', () => {
  const SCALED = { concurrency: 1, replicas: 1, replicasMax: 4 } as const

  it('keeps as many handlers as calls had needed, until they prove to be too many', async (context) => {
    await using folder = await tempFolder()
    const pass = clock(context)
    await using node = await bed(folder.path)
    const { engine } = node
    engine.callMs = 500
    const one = await deploy(node, SCALED)
    await Promise.all(Array.from({ length: 4 }, () => outcome(node)))
    assert.equal(engine.size, 4)
    await node.reconciler.close({ removeHandlers: false })

    await using next = { ...(await bed(folder.path, { engine })), engine }
    next.reconciler.setDesired([one], true)
    await eventually(() => reportOf(next).handlers.ready === 4)
    assert.equal(engine.asked.start, 4)
    // As ever: half a minute with fewer calls takes them away.
    for (let round = 0; round < 2; round++) {
      pass(31_000)
      next.reconciler.setDesired([one])
      await sleep(50)
    }
    await eventually(() => engine.size === 1)
  })

  it('keeps no more than there may be now, and only those of the release that is wanted', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    const { engine } = node
    engine.callMs = 500
    const one = await deploy(node, SCALED)
    await Promise.all(Array.from({ length: 4 }, () => node.router.invoke(invocation({ fn: 'f' }))))
    await node.reconciler.close({ removeHandlers: false })
    const fewer = { ...one, settings: { ...one.settings, replicasMax: 2 } }
    await using next = { ...(await bed(folder.path, { engine })), engine }
    next.reconciler.setDesired([fewer], true)
    await eventually(() => reportOf(next).handlers.ready === 2 && engine.size === 2)
    await next.reconciler.close({ removeHandlers: false })
    await using last = { ...(await bed(folder.path, { engine })), engine }
    last.reconciler.setDesired([{ ...fewer, settings: { ...fewer.settings, memoryMiB: 99 } }])
    await eventually(() => reportOf(last).handlers.ready === 1 && engine.size === 1)
  })
})

describe('a bundle that is deployed while old ones are removed', () => {
  it('stays', async () => {
    await using folder = await tempFolder()
    await using node = await bed(folder.path)
    const other = await assignmentOf(node.source, 'g', answering('g'))
    const releases = await Promise.all(
      ['1', '2', '3'].map((text) => assignmentOf(node.source, 'f', answering(text))),
    )
    // The command comes when it has been decided that there is something to remove, and before that is done.
    const retain = node.bundles.retain.bind(node.bundles)
    let isLast = false
    node.bundles.retain = async (...used) => {
      if (isLast) {
        node.reconciler.setDesired([...releases.slice(2), other])
        await node.bundles.ensure(other.artifact, AbortSignal.timeout(60_000))
      }
      return retain(...used)
    }
    for (const release of releases) {
      isLast = release === releases[2]
      node.reconciler.setDesired([release])
      await reported(node, 'f', 'ready')
      if (!isLast) await node.reconciler.settled(AbortSignal.timeout(60_000))
    }
    const [oldest, before] = releases
    await eventually(() => node.bundles.get(oldest?.artifact.digest ?? '') === undefined)
    assert.ok(node.bundles.get(before?.artifact.digest ?? '') !== undefined)
    await reported(node, 'g', 'ready')
    assert.ok(node.bundles.get(other.artifact.digest) !== undefined)
    assert.equal(node.source.fetched.filter((digest) => digest === other.artifact.digest).length, 1)
    assert.deepEqual(node.complaints, [])
  })
})
