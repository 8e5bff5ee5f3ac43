import assert from 'node:assert/strict'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import type { Assignment } from '#shared/schemas/command.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import { callers } from '#test/callers.ts'
import { eventually } from '#test/eventually.ts'
import {
  answering,
  assignmentOf,
  call,
  makeEngine,
  nodeBed,
  reported,
  startNode,
  type NodeBed,
  type ReconcileNode,
} from '#test/reconcile-scope.ts'

const settle = (node: ReconcileNode): Promise<void> =>
  node.reconciler.settled(AbortSignal.timeout(60_000))

for (const kind of ['process', 'docker'] satisfies EngineKind[]) {
  describe(`reconciler on engine ${kind}`, () => {
    deployTests(kind)
    switchTests(kind)
    failureTests(kind)
    overrunTests(kind)
    adoptionTests(kind)
  })
}

function deployTests(kind: EngineKind): void {
  it('runs what is wanted, answers calls, and removes it with everything it had', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const hello = await assignmentOf(node.source, 'site/hello', answering('hello '), {
      replicas: 2,
    })
    node.reconciler.setDesired([hello])
    const report = await reported(node, 'site/hello', 'ready')
    assert.deepEqual(report.serving, [hello.release])
    assert.deepEqual(report.handlers, { ready: 2, starting: 0, restarts: 0, paused: 0 })
    assert.equal(await call(node.router, 'site/hello', 'you'), 'hello you')
    node.reconciler.setDesired([])
    await settle(node)
    assert.deepEqual(node.reconciler.report(), [])
    await assert.rejects(call(node.router, 'site/hello'), { code: 'FUNCTION_UNKNOWN' })
    assert.deepEqual(await node.engine.list(AbortSignal.timeout(60_000)), [])
    assert.deepEqual(await readdir(join(bed.folder, 'h')), [])
    assert.deepEqual(node.complaints, [])
    await eventually(async () => (await readdir(join(bed.folder, 'bundles'))).length === 0)
  })

  for (const { most, ...changes } of [{ most: 4 }, { most: 2, startsMax: 2 }]) {
    it(`starts several functions at once, ${most} and no more`, async ({ signal }) => {
      await using bed = await nodeBed(kind)
      const { engine, starts } = gatheringEngine(bed, most)
      await using node = await startNode(bed, { engine, ...changes })
      const names = ['a', 'b', 'c', 'd', 'e', 'f']
      const wanted: Assignment[] = []
      for (const fn of names) wanted.push(await assignmentOf(node.source, fn, answering(fn)))
      // None has to wait for its code.
      for (const { artifact } of wanted) await node.bundles.ensure(artifact, signal)
      node.reconciler.setDesired(wanted)
      for (const fn of names) {
        await reported(node, fn, 'ready')
        assert.equal(await call(node.router, fn), fn)
      }
      assert.equal(node.timings.length, names.length)
      assert.equal(starts.most, most)
    })
  }

  it('gives new queue settings to a function without a new handler', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const first = await assignmentOf(node.source, 'hello', answering('hello'))
    node.reconciler.setDesired([first])
    await reported(node, 'hello', 'ready')
    node.reconciler.setDesired([{ ...first, settings: { ...first.settings, queue: 3 } }])
    assert.equal(node.reconciler.report()[0]?.state, 'ready')
    await settle(node)
    assert.equal(node.router.lane('hello')?.settings.queue, 3)
    assert.equal(node.timings.length, 1)
  })

  it('keeps the lines a function writes, with the handler that wrote them', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const files = {
      'index.mjs': `console.log('loaded'); export default async () => new Response('')`,
    }
    const talker = await assignmentOf(node.source, 'talker', files)
    node.reconciler.setDesired([talker])
    const line = await eventually(() => node.lines.find(({ text }) => text === 'loaded'))
    assert.deepEqual([line.fn, line.release, line.level], ['talker', talker.release, 'info'])
    assert.match(line.handler, /^[a-z0-9]{12}$/)
  })
}

/** The real engine, except that its first starts wait for each other, and then a little for one too many. */
function gatheringEngine(bed: NodeBed, expected: number) {
  const engine = makeEngine(bed)
  const start = engine.start.bind(engine)
  const starts = { now: 0, most: 0 }
  const gathered = Promise.withResolvers<void>()
  engine.start = async (spec, signal) => {
    starts.most = Math.max(starts.most, ++starts.now)
    void sleep(starts.now < expected ? 2_000 : 300).then(gathered.resolve)
    const started = gathered.promise.then(() => start(spec, signal))
    // After 5 s the next one may begin, whatever has become of this one.
    const counts = Promise.race([started, sleep(4_000)])
    void counts.catch(() => {}).then(() => starts.now--)
    return started
  }
  return { engine, starts }
}

function switchTests(kind: EngineKind): void {
  it('is ready when no call gets an answer of the release before any more', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    node.reconciler.setDesired([
      await assignmentOf(node.source, 'hello', answering('one'), { replicas: 2 }),
    ])
    await reported(node, 'hello', 'ready')
    const next = await assignmentOf(node.source, 'hello', answering('two'), { replicas: 2 })
    node.reconciler.setDesired([next])
    const lookAgain = performance.now() + 30_000
    while (node.reconciler.report()[0]?.state !== 'ready') {
      assert.ok(performance.now() < lookAgain)
      await setImmediate()
    }
    assert.deepEqual(node.reconciler.report()[0]?.serving, [next.release])
    assert.equal(await call(node.router, 'hello'), 'two')
  })

  it('loses no call in a redeploy, and ends up with the new release only', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering('one'))])
    await reported(node, 'hello', 'ready')
    const load = callers(node, 'hello')
    const next = await assignmentOf(node.source, 'hello', answering('two'))
    node.reconciler.setDesired([next])
    // The old release is no reason to call the new one ready.
    assert.notEqual(node.reconciler.report()[0]?.state, 'ready')
    await reported(node, 'hello', 'ready')
    await settle(node)
    const { answers, failures } = await load.end()
    assert.deepEqual(failures, [])
    assert.ok((answers.get('one') ?? 0) > 0 && (answers.get('two') ?? 0) > 0)
    assert.equal(await call(node.router, 'hello'), 'two')
    assert.deepEqual(node.reconciler.report()[0]?.serving, [next.release])
    const left = await node.engine.list(AbortSignal.timeout(60_000))
    assert.deepEqual(
      left.map(({ release }) => release),
      [next.release],
    )
  })

  it('loses no call when it scales up and down', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const one = await assignmentOf(node.source, 'hello', answering('hi'))
    node.reconciler.setDesired([one])
    await reported(node, 'hello', 'ready')
    const load = callers(node, 'hello')
    for (const replicas of [3, 1, 2]) {
      node.reconciler.setDesired([{ ...one, settings: { ...one.settings, replicas } }])
      await settle(node)
      assert.equal(node.reconciler.report()[0]?.handlers.ready, replicas)
    }
    assert.deepEqual((await load.end()).failures, [])
  })

  it('lets the old release serve when the new one cannot be loaded, and says why', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const good = await assignmentOf(node.source, 'hello', answering('good'))
    node.reconciler.setDesired([good])
    await reported(node, 'hello', 'ready')
    const load = callers(node, 'hello')
    const bad = await assignmentOf(node.source, 'hello', {
      'index.mjs': `throw new Error('no such sensor')`,
    })
    node.reconciler.setDesired([bad])
    const report = await reported(node, 'hello', 'failed')
    assert.equal(report.release, bad.release)
    assert.deepEqual(report.serving, [good.release])
    assert.equal(report.reason?.code, 'FUNCTION_LOAD')
    assert.match(report.reason?.message ?? '', /no such sensor/)
    node.reconciler.setDesired([good])
    await reported(node, 'hello', 'ready')
    assert.deepEqual((await load.end()).failures, [])
    assert.equal(node.reconciler.report()[0]?.handlers.restarts, 0)
  })
}

function failureTests(kind: EngineKind): void {
  it('refuses calls at once while a function cannot be loaded, and tries again ever less often', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { random: () => 1 })
    node.reconciler.setDesired([
      await assignmentOf(node.source, 'broken', {
        'index.mjs': `throw new Error('broken on purpose')`,
      }),
    ])
    const report = await reported(node, 'broken', 'failed')
    assert.match(report.reason?.message ?? '', /broken on purpose/)
    await eventually(() =>
      call(node.router, 'broken').catch(
        (error: { code?: string }) => error.code === 'FUNCTION_UNAVAILABLE',
      ),
    )
    const failed = (): number =>
      node.complaints.filter((line) => line.startsWith('function failed')).length
    await eventually(() => failed() >= 4, { timeoutMs: 60_000 })
    assert.ok(failed() <= 6)
    const [now] = node.reconciler.report()
    assert.ok((now?.failures ?? 0) >= 4, 'it says how often it has failed in a row')
    // The fourth pause is of a second, with the jitter at its end; whole milliseconds of two clocks.
    const nextInMs = (now?.retryAtMs ?? 0) - Date.now()
    assert.ok(Math.abs(nextInMs) < 5_000, `the next try is due in ${nextInMs} ms`)
  })

  it('answers the call after the one that killed the handler', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    const files = {
      'index.mjs': `export default async (request) => {
        if (await request.text() === 'die') process.kill(process.pid, 'SIGKILL')
        return new Response('alive')
      }`,
    }
    node.reconciler.setDesired([await assignmentOf(node.source, 'mortal', files)])
    await reported(node, 'mortal', 'ready')
    const restarts = (): number => node.reconciler.report()[0]?.handlers.restarts ?? 0
    await assert.rejects(call(node.router, 'mortal', 'die'), { code: 'FUNCTION_EXITED' })
    assert.equal(await call(node.router, 'mortal'), 'alive')
    await eventually(() => restarts() === 1)
    const before = restarts()
    const listed = await node.engine.list(AbortSignal.timeout(60_000))
    const { id } = listed.find(({ state }) => state === 'running') ?? { id: '' }
    await node.engine.stop(id, 0, AbortSignal.timeout(60_000))
    await eventually(() => restarts() === before + 1)
    assert.equal(await call(node.router, 'mortal'), 'alive')
    await reported(node, 'mortal', 'ready')
    assert.equal(restarts(), before + 1)
  })

  it('says why an artifact cannot be had, and goes on when it can', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    node.source.failure = new Fault('ARTIFACT_UNAVAILABLE', 'nobody has it')
    node.reconciler.setDesired([await assignmentOf(node.source, 'hello', answering('hello'))])
    const report = await reported(node, 'hello', 'failed')
    assert.deepEqual(report.reason, { code: 'ARTIFACT_UNAVAILABLE', message: 'nobody has it' })
    node.source.failure = undefined
    await reported(node, 'hello', 'ready')
    assert.equal(await call(node.router, 'hello'), 'hello')
  })

  it('reports what a function says of itself as text that every protocol can carry', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    node.reconciler.setDesired([
      await assignmentOf(node.source, 'odd', {
        'index.mjs': `throw new Error('a half \\ud800 ' + '🐟'.repeat(20_000))`,
      }),
    ])
    const report = await reported(node, 'odd', 'failed')
    assert.match(report.reason?.message ?? '', /a half \ufffd 🐟+\.\.\.$/u)
    const answer = call(node.router, 'odd')
    await assert.rejects(answer, (error: Error) => error.message.isWellFormed())
  })

  it('says what the program wrote when it ends before it is ready', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed)
    node.reconciler.setDesired([
      await assignmentOf(node.source, 'quits', {
        'index.mjs': `import { writeSync } from 'node:fs'; writeSync(2, 'cannot go on'); process.abort()`,
      }),
    ])
    const report = await reported(node, 'quits', 'failed')
    assert.equal(report.reason?.code, 'HANDLER_START')
    assert.match(report.reason?.message ?? '', /exit code \d+ before it was ready.*cannot go on/s)
  })
}

function overrunTests(kind: EngineKind): void {
  it('replaces a handler whose loop is blocked, and answers the next call', async () => {
    await using bed = await nodeBed(kind)
    await using node = await startNode(bed, { drainMs: 300 })
    const files = {
      'index.mjs': `export default async (request) => {
        if (await request.text() === 'block') for (;;);
        return new Response('alive')
      }`,
    }
    const blocker = await assignmentOf(node.source, 'blocker', files, { timeoutMs: 3_000 })
    node.reconciler.setDesired([blocker])
    await reported(node, 'blocker', 'ready')
    const [before] = await node.engine.list(AbortSignal.timeout(60_000))
    await assert.rejects(call(node.router, 'blocker', 'block'), { code: 'DEADLINE_EXCEEDED' })
    await eventually(async () => (await call(node.router, 'blocker')) === 'alive', {
      timeoutMs: 20_000,
    })
    await settle(node)
    const [now] = await node.engine.list(AbortSignal.timeout(60_000))
    assert.notEqual(now?.id, before?.id)
    assert.equal(node.reconciler.report()[0]?.handlers.restarts, 1)
  })
}

function adoptionTests(kind: EngineKind): void {
  it('takes over the handlers that an agent left running, without starting any', async () => {
    await using bed = await nodeBed(kind)
    const files = answering('here ')
    let ids: readonly string[]
    let hello: Assignment
    {
      await using first = await startNode(bed)
      hello = await assignmentOf(first.source, 'hello', files, { replicas: 2 })
      first.reconciler.setDesired([hello])
      await reported(first, 'hello', 'ready')
      ids = (await first.engine.list(AbortSignal.timeout(60_000))).map(({ id }) => id).toSorted()
      await first.close(false)
    }
    await using second = await startNode(bed)
    second.reconciler.setDesired([hello])
    assert.equal(await call(second.router, 'hello', 'again'), 'here again')
    await reported(second, 'hello', 'ready')
    await settle(second)
    const now = (await second.engine.list(AbortSignal.timeout(60_000))).map(({ id }) => id)
    assert.deepEqual(now.toSorted(), ids)
    assert.equal(second.timings.length, 0)
    assert.deepEqual(second.source.fetched, [])
  })

  it('lets an adopted old release serve until the new one does', async () => {
    await using bed = await nodeBed(kind)
    {
      await using first = await startNode(bed)
      first.reconciler.setDesired([await assignmentOf(first.source, 'hello', answering('old'))])
      await reported(first, 'hello', 'ready')
      await first.close(false)
    }
    await using second = await startNode(bed)
    const next = await assignmentOf(second.source, 'hello', answering('new'))
    second.reconciler.setDesired([next])
    const load = callers(second, 'hello')
    await reported(second, 'hello', 'ready')
    await settle(second)
    const { failures, answers } = await load.end()
    assert.deepEqual(failures, [])
    assert.ok((answers.get('new') ?? 0) > 0)
    assert.equal((await second.engine.list(AbortSignal.timeout(60_000))).length, 1)
  })

  it('removes what nobody wants or knows: handlers of other functions, folders and processes without a record', async () => {
    await using bed = await nodeBed(kind)
    let keep: Assignment
    {
      await using first = await startNode(bed)
      keep = await assignmentOf(first.source, 'keep', answering('kept'))
      const drop = await assignmentOf(first.source, 'drop', answering('dropped'))
      const lost = await assignmentOf(first.source, 'lost', answering('lost'))
      first.reconciler.setDesired([keep, drop, lost])
      for (const fn of ['keep', 'drop', 'lost']) await reported(first, fn, 'ready')
      await first.close(false)
      const listed = await first.engine.list(AbortSignal.timeout(60_000)).catch(() => [])
      assert.equal(listed.length === 3 || kind === 'docker', true)
    }
    await using engine = makeEngine(bed)
    const before = await engine.list(AbortSignal.timeout(60_000))
    assert.equal(before.length, 3)
    const lostId = before.find(({ fn }) => fn === 'lost')?.id ?? ''
    await rm(join(bed.folder, 'h', lostId, 'handler.json'))
    await mkdir(join(bed.folder, 'h', 'straystray12', 'fn'), { recursive: true })
    await using second = await startNode(bed)
    second.reconciler.setDesired([keep])
    await reported(second, 'keep', 'ready')
    await settle(second)
    const left = await engine.list(AbortSignal.timeout(60_000))
    assert.deepEqual(
      left.map(({ fn }) => fn),
      ['keep'],
    )
    assert.deepEqual(await readdir(join(bed.folder, 'h')), [left[0]?.id])
  })
}
