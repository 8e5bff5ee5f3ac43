import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { ProcessEngine } from '#agent/handlers/index.ts'
import { pidsWithEnvironment } from '#agent/handlers/process/index.ts'
import {
  TICKING,
  scriptSpec,
  settledTicks,
  ticks,
  watching,
  within,
  type EngineBed,
} from '#test/engine-bed.ts'
import { eventually } from '#test/eventually.ts'
import { tempFolder } from '#test/temp.ts'
import { engineConformance } from './engine-conformance.ts'

let beds = 0

async function processBed(command = ['/bin/sh', 'fn/main.sh']): Promise<EngineBed> {
  const folder = await tempFolder()
  const root = folder.join('h')
  await mkdir(root)
  const installation = `test-${process.pid}-${++beds}`
  const engine: EngineBed['engine'] = (id, options) =>
    new ProcessEngine({
      folder: root,
      installation: id,
      env: process.env,
      images: {
        load: async () => ({
          arch: 'amd64',
          process: options?.images !== false ? { binary: { command } } : {},
        }),
      },
    })
  return {
    installation,
    root,
    engine,
    async [Symbol.asyncDispose]() {
      for (const id of [installation, `${installation}-other`]) {
        await using last = engine(id)
        for (const left of await last.list(within())) await last.stop(left.id, 0, within())
      }
      await folder[Symbol.asyncDispose]()
    },
  }
}

engineConformance('process', () => processBed())

describe('engine process: what only it does', () => {
  it('never signals a process that has got the pid of a handler that is gone', async () => {
    await using bed = await processBed()
    await using engine = bed.engine(bed.installation)
    const bystander = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' })
    try {
      await once(bystander, 'spawn')
      const spec = await scriptSpec(bed, 'sleep 600')
      const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
      const { id, fn, release, specDigest } = spec
      const identity = { pid: bystander.pid, startTicks: '1', bootId }
      await writeFile(
        join(spec.folder, 'process.json'),
        JSON.stringify({
          installation: bed.installation,
          id,
          fn,
          release,
          specDigest,
          process: identity,
        }),
      )
      assert.equal((await engine.list(within()))[0]?.state, 'exited')
      await engine.stop(id, 100, within())
      assert.deepEqual(await engine.list(within()), [])
      assert.equal(bystander.exitCode ?? bystander.signalCode, null)
    } finally {
      bystander.kill('SIGKILL')
    }
  })

  it('finds a process whose agent died before it could write down its pid', async () => {
    await using bed = await processBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, 'sleep 600')
    await engine.start(spec, within())
    const file = join(spec.folder, 'process.json')
    const { process: _, ...cut }: { process: unknown } = JSON.parse(await readFile(file, 'utf8'))
    await writeFile(file, JSON.stringify(cut))
    assert.equal((await engine.list(within()))[0]?.state, 'running')
    await engine.stop(spec.id, 0, within())
    assert.deepEqual(processesOf(spec.id), [])
  })

  it('ends what a handler has forked into sessions of their own', async () => {
    await using bed = await processBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, 'setsid sleep 600 & echo up; sleep 600')
    await engine.start(spec, within())
    await eventually(async () => (await engine.tail(spec.id, 100, within())).includes('up'))
    await eventually(() => processesOf(spec.id).length >= 3)
    await engine.stop(spec.id, 0, within())
    assert.deepEqual(processesOf(spec.id), [])
  })

  it('pauses what a handler has forked into sessions of their own as well', async () => {
    await using bed = await processBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, `setsid sh -c '${TICKING}' & sleep 600`)
    await engine.start(spec, within())
    await eventually(async () => (await ticks(engine, spec.id)) > 0)
    await engine.pause(spec.id, within())
    const written = await settledTicks(engine, spec.id)
    await engine.unpause(spec.id, within())
    await eventually(async () => (await ticks(engine, spec.id)) > written)
    await engine.stop(spec.id, 0, within())
  })

  it('changes the memory and the priority of all processes of a handler', async () => {
    await using bed = await processBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, 'sleep 600 & echo up; sleep 600')
    await engine.start(spec, within())
    await eventually(async () => (await engine.tail(spec.id, 100, within())).includes('up'))
    await eventually(() => processesOf(spec.id).length >= 3)
    await engine.update(spec.id, { memoryMiB: 16, cpus: 0.5, pids: 32 }, within())
    const pids = processesOf(spec.id)
    assert.ok(pids.length >= 3)
    for (const pid of pids) {
      const limits = await readFile(`/proc/${pid}/limits`, 'utf8')
      assert.match(limits, new RegExp(`Max data size +${(16 + 1024) * 1024 * 1024} `))
      assert.equal(getPriority(pid), 10)
    }
    await engine.stop(spec.id, 0, within())
  })

  it('limits open files and memory', async () => {
    await using bed = await processBed([process.execPath, 'fn/main.sh'])
    await using engine = bed.engine(bed.installation)
    using watch = watching(engine)
    const spec = await scriptSpec(
      bed,
      `console.log(require('node:child_process').execSync('ulimit -n; ulimit -c').toString())
       const kept = []
       for (;;) kept.push(Buffer.alloc(16 * 1024 * 1024, 1))`,
    )
    await engine.start(spec, within())
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits, {
      timeoutMs: 30_000,
    })
    assert.notEqual(exit?.exitCode, 0)
    assert.match(await engine.tail(spec.id, 1024 * 1024, within()), /4096\n0\n/)
    await engine.stop(spec.id, 0, within())
  })

  it('keeps the output file bounded while somebody watches', async () => {
    await using bed = await processBed()
    await using engine = bed.engine(bed.installation)
    using _ = watching(engine)
    const spec = await scriptSpec(
      bed,
      'dd if=/dev/zero bs=1024 count=3000 2>/dev/null; echo end; sleep 600',
    )
    await engine.start(spec, within())
    const output = join(spec.folder, 'output')
    await eventually(async () => {
      const { size } = await stat(output)
      return size < 128 * 1024 && (await engine.tail(spec.id, 10, within())).includes('end')
    })
    await engine.stop(spec.id, 0, within())
  })
})

function processesOf(handlerId: string): number[] {
  return pidsWithEnvironment(`SHOAL_HANDLER=${handlerId}`)
}
