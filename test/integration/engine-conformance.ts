import assert from 'node:assert/strict'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '#shared/fault.ts'
import type { EngineKind } from '#shared/schemas/names.ts'
import {
  TICKING,
  scriptSpec,
  settledTicks,
  spareSpec,
  ticks,
  watching,
  within,
  type EngineBed,
} from '#test/engine-bed.ts'
import { eventually } from '#test/eventually.ts'

/** What every engine promises; each implementation's own test file runs it. */
export function engineConformance(kind: EngineKind, makeBed: () => Promise<EngineBed>): void {
  describe(`engine ${kind}: the promises of every engine`, () => {
    lifeTests(kind, makeBed)
    pauseTests(makeBed)
    spareTests(makeBed)
    endTests(makeBed)
    ownershipTests(makeBed)
    troubleTests(makeBed)
  })
}

function lifeTests(kind: EngineKind, makeBed: () => Promise<EngineBed>): void {
  it('lists a handler from its start to its stop, and a second stop is no error', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    assert.equal(engine.kind, kind)
    assert.deepEqual(await engine.list(within()), [])
    const spec = await scriptSpec(bed, 'sleep 600')
    await engine.start(spec, within())
    assert.deepEqual(await engine.list(within()), [
      {
        id: spec.id,
        fn: 'site/thermo',
        release: 'r1-0a1b2c3d',
        specDigest: 'sha256:spec',
        state: 'running',
      },
    ])
    await engine.stop(spec.id, 0, within())
    assert.deepEqual(await engine.list(within()), [])
    await engine.stop(spec.id, 0, within())
    await engine.stop('neverexisted', 0, within())
  })

  it('tells the handler its socket and its id, and shows it its code where INIT says', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(
      bed,
      'echo "$SHOAL_HANDLER"; ls "$(dirname "$SHOAL_SOCKET")"; sleep 600',
    )
    await writeFile(join(spec.folder, 's'), '')
    await engine.start(spec, within())
    const dir = engine.codeDirInside(spec)
    assert.equal(dir, kind === 'docker' ? '/shoal/fn' : join(spec.folder, 'fn'))
    await eventually(async () => {
      const lines = (await engine.tail(spec.id, 4096, within())).trim().split('\n')
      return lines[0] === spec.id && lines.includes('s') && lines.includes('fn')
    })
    await engine.stop(spec.id, 0, within())
  })

  it('stops by asking first: a handler that ends within the grace is not killed', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const polite = await scriptSpec(
      bed,
      'trap "touch /tmp/asked; exit 0" TERM; echo up; while :; do sleep 0.05; done',
    )
    await engine.start(polite, within())
    await eventually(async () => (await engine.tail(polite.id, 100, within())).includes('up'))
    const startedAtMs = performance.now()
    await engine.stop(polite.id, 20_000, within())
    assert.ok(performance.now() - startedAtMs < 10_000, 'waited for the whole grace')
  })

  it('stops by force when the grace is over, with everything the handler has forked', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const stubborn = await scriptSpec(
      bed,
      'trap "" TERM; sleep 600 & echo up; while :; do sleep 1; done',
    )
    await engine.start(stubborn, within())
    await eventually(async () => (await engine.tail(stubborn.id, 100, within())).includes('up'))
    await engine.stop(stubborn.id, 200, within())
    assert.deepEqual(await engine.list(within()), [])
  })

  it('probes by really starting something, and leaves nothing', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const tookMs = await engine.probe(within())
    assert.ok(tookMs > 0)
    assert.deepEqual(await engine.list(within()), [])
  })

  it('names its version and the runtimes it can start', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    assert.match(await engine.version(within()), /\d+\.\d+/)
    assert.deepEqual(await engine.runtimes(within()), ['binary'])
    assert.notEqual(await engine.identity('binary'), '')
  })
}

function pauseTests(makeBed: () => Promise<EngineBed>): void {
  it('holds a paused handler with all that it has forked, and lets it go on, however often it is told', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, `(${TICKING}) & wait`)
    await engine.start(spec, within())
    await eventually(async () => (await ticks(engine, spec.id)) > 0)
    for (let round = 0; round < 3; round++) {
      await engine.pause(spec.id, within())
      await engine.pause(spec.id, within())
      // Docker may be told late of the resumption before, and mends it itself.
      await eventually(async () => (await engine.list(within()))[0]?.state === 'paused')
      const written = await settledTicks(engine, spec.id)
      await engine.unpause(spec.id, within())
      await engine.unpause(spec.id, within())
      await eventually(async () => (await engine.list(within()))[0]?.state === 'running')
      await eventually(async () => (await ticks(engine, spec.id)) > written)
    }
    await engine.stop(spec.id, 0, within())
  })

  it('stops a paused handler, politely and by force', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    for (const graceMs of [0, 20_000]) {
      const spec = await scriptSpec(bed, `trap "exit 0" TERM; echo up; ${TICKING}`)
      await engine.start(spec, within())
      await eventually(async () => (await ticks(engine, spec.id)) > 0)
      await engine.pause(spec.id, within())
      const startedAtMs = performance.now()
      await engine.stop(spec.id, graceMs, within())
      assert.ok(performance.now() - startedAtMs < 10_000, 'waited for the whole grace')
      assert.deepEqual(await engine.list(within()), [])
    }
  })

  it('finds a handler paused that an earlier instance has paused, and does not take it for ended', async () => {
    await using bed = await makeBed()
    const spec = await scriptSpec(bed, TICKING)
    {
      await using first = bed.engine(bed.installation)
      await first.start(spec, within())
      await first.pause(spec.id, within())
    }
    await using second = bed.engine(bed.installation)
    using watch = watching(second)
    assert.equal((await second.list(within()))[0]?.state, 'paused')
    await sleep(500)
    assert.deepEqual(watch.exits, [])
    await second.unpause(spec.id, within())
    const written = await ticks(second, spec.id)
    await eventually(async () => (await ticks(second, spec.id)) > written)
    await second.stop(spec.id, 0, within())
  })

  it('cannot pause, wake or change what has ended or was never there, and says so', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    const spec = await scriptSpec(bed, 'exit 0')
    await engine.start(spec, within())
    await eventually(() => watch.exits.length > 0)
    const gone = { code: 'FUNCTION_EXITED' }
    await assert.rejects(engine.pause(spec.id, within()), gone)
    await assert.rejects(engine.pause('neverexisted', within()), gone)
    await assert.rejects(engine.unpause('neverexisted', within()), gone)
    await assert.rejects(engine.update('neverexisted', spec.limits, within()), gone)
    await engine.stop(spec.id, 0, within())
  })
}

function spareTests(makeBed: () => Promise<EngineBed>): void {
  it('starts a spare: a handler like others, but listed without a function', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    const script =
      'echo "$SHOAL_HANDLER"; while [ ! -e "${SHOAL_SOCKET}.end" ]; do sleep 0.02; done; exit 4'
    const spec = await spareSpec(bed, script)
    await engine.startSpare(spec, within())
    assert.deepEqual(await engine.list(within()), [{ id: spec.id, state: 'running' }])
    await eventually(async () => (await engine.tail(spec.id, 100, within())).trim() === spec.id)
    await engine.update(spec.id, { ...spec.limits, cpus: 0.5 }, within())
    await writeFile(join(spec.folder, 's.end'), '')
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits)
    assert.deepEqual(exit, { id: spec.id, exitCode: 4, oomKilled: false })
    await engine.stop(spec.id, 0, within())
    assert.deepEqual(await engine.list(within()), [])
  })

  it('shows a spare the files that come into its folder after its start', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const script =
      'cd "$(dirname "$SHOAL_SOCKET")"; while [ ! -e later/x ]; do sleep 0.02; done; cat later/x; sleep 600'
    const spec = await spareSpec(bed, script)
    await engine.startSpare(spec, within())
    await mkdir(join(spec.folder, 'new'))
    await writeFile(join(spec.folder, 'new', 'x'), 'seen\n')
    await rename(join(spec.folder, 'new'), join(spec.folder, 'later'))
    await eventually(async () => (await engine.tail(spec.id, 100, within())) === 'seen\n')
    await engine.stop(spec.id, 0, within())
  })

  it('names the runtime of a spare that it cannot start', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const spec = { ...(await spareSpec(bed, 'sleep 600')), runtime: 'python3' as const }
    await assert.rejects(engine.startSpare(spec, within()), { code: 'IMAGE_MISSING' })
    assert.deepEqual(await engine.list(within()), [])
  })
}

function endTests(makeBed: () => Promise<EngineBed>): void {
  it('reports the end of a handler with its exit code, and lists it as exited until it is stopped', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    const spec = await scriptSpec(bed, 'sleep 0.3; exit 7')
    await engine.start(spec, within())
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits)
    assert.deepEqual(exit, { id: spec.id, exitCode: 7, oomKilled: false })
    const [listed] = await engine.list(within())
    assert.deepEqual([listed?.state, listed?.exitCode], ['exited', 7])
    await engine.stop(spec.id, 0, within())
    assert.deepEqual(await engine.list(within()), [])
  })

  it('reports the end of a handler that ends at once', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    const spec = await scriptSpec(bed, 'exit 3')
    await engine.start(spec, within())
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits)
    assert.deepEqual(exit, { id: spec.id, exitCode: 3, oomKilled: false })
    await engine.stop(spec.id, 0, within())
  })

  it('does not report the end of a handler that it stops, and so not of the next one with its id', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    // A second, for news of the first that comes late.
    const script =
      'echo up; while [ ! -e "${SHOAL_SOCKET}.end" ]; do sleep 0.02; done; sleep 1; exit 4'
    const spec = await scriptSpec(bed, script)
    for (let round = 0; round < 2; round++) {
      await engine.start(spec, within())
      await eventually(async () => (await engine.tail(spec.id, 100, within())).includes('up'))
      if (round === 0) await engine.stop(spec.id, 0, within())
    }
    await writeFile(join(spec.folder, 's.end'), '')
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits)
    assert.deepEqual(exit, { id: spec.id, exitCode: 4, oomKilled: false })
    await engine.stop(spec.id, 0, within())
    assert.equal(watch.exits.length, 1)
  })

  it('keeps the last output, bounded, for a handler that has ended as well', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    const spec = await scriptSpec(
      bed,
      'i=0; while [ $i -lt 300 ]; do echo "line $i"; i=$((i+1)); done; sleep 0.3; echo last words >&2; exit 1',
    )
    await engine.start(spec, within())
    await eventually(() => watch.exits.length > 0)
    const tail = await eventually(async () => {
      const text = await engine.tail(spec.id, 500, within())
      return text.includes('line 299') && text.includes('last words') && text
    })
    assert.ok(Buffer.byteLength(tail) <= 500)
    assert.equal(tail.includes('line 0\n'), false)
    await engine.stop(spec.id, 0, within())
    assert.equal(await engine.tail(spec.id, 500, within()), '')
  })
}

function ownershipTests(makeBed: () => Promise<EngineBed>): void {
  it('finds, watches and stops what an earlier instance has started', async () => {
    await using bed = await makeBed()
    const spec = await scriptSpec(
      bed,
      'while [ ! -e "${SHOAL_SOCKET}.end" ]; do sleep 0.05; done; exit 5',
    )
    const other = await scriptSpec(bed, 'sleep 600')
    {
      await using first = bed.engine(bed.installation)
      await first.start(spec, within())
      await first.start(other, within())
    }
    await using second = bed.engine(bed.installation)
    const listed = await second.list(within())
    assert.deepEqual(listed.map(({ id }) => id).toSorted(), [spec.id, other.id].toSorted())
    assert.ok(listed.every(({ state }) => state === 'running'))
    using watch = watching(second)
    await writeFile(join(spec.folder, 's.end'), '')
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits)
    assert.deepEqual(exit, { id: spec.id, exitCode: 5, oomKilled: false })
    await second.stop(spec.id, 0, within())
    await second.stop(other.id, 0, within())
    assert.deepEqual(await second.list(within()), [])
  })

  it('never lists, reports or stops what another installation has started', async () => {
    await using bed = await makeBed()
    await using mine = bed.engine(bed.installation)
    await using theirs = bed.engine(`${bed.installation}-other`)
    using watch = watching(mine)
    const foreign = await scriptSpec(
      bed,
      'while [ ! -e "${SHOAL_SOCKET}.end" ]; do sleep 0.05; done',
    )
    await theirs.start(foreign, within())
    try {
      assert.deepEqual(await mine.list(within()), [])
      await mine.stop(foreign.id, 0, within())
      assert.equal((await theirs.list(within()))[0]?.state, 'running')
      await writeFile(join(foreign.folder, 's.end'), '')
      await eventually(async () => (await theirs.list(within()))[0]?.state === 'exited')
      assert.deepEqual(watch.exits, [])
    } finally {
      await theirs.stop(foreign.id, 0, within())
    }
  })
}

function troubleTests(makeBed: () => Promise<EngineBed>): void {
  it('refuses a runtime that is not here, saying what to do', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, 'sleep 600', { runtime: 'python3' })
    await assert.rejects(engine.start(spec, within()), (error: unknown) => {
      assert.ok(Fault.is(error, 'IMAGE_MISSING'))
      assert.match(error.message, /python3.*npm start/)
      return true
    })
    await using empty = bed.engine(bed.installation, { images: false })
    assert.deepEqual(await empty.runtimes(within()), [])
    await assert.rejects(empty.identity('nodejs'), { code: 'IMAGE_MISSING' })
    assert.deepEqual(await engine.list(within()), [])
  })

  it('leaves nothing of a start that was given up, at whatever moment', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    for (const afterMs of [0, 3, 10, 40, 100]) {
      const spec = await scriptSpec(bed, 'sleep 600')
      const giveUp = new AbortController()
      setTimeout(() => giveUp.abort(), afterMs)
      await engine.start(spec, giveUp.signal).then(
        () => engine.stop(spec.id, 0, within()),
        () => undefined,
      )
    }
    await eventually(async () => (await engine.list(within())).length === 0)
  })

  it('starts several at once', async () => {
    await using bed = await makeBed()
    await using engine = bed.engine(bed.installation)
    const specs = await Promise.all([1, 2, 3, 4].map(() => scriptSpec(bed, 'sleep 600')))
    await Promise.all(specs.map((spec) => engine.start(spec, within())))
    assert.equal((await engine.list(within())).length, 4)
    await Promise.all(specs.map((spec) => engine.stop(spec.id, 0, within())))
    assert.deepEqual(await engine.list(within()), [])
  })
}
