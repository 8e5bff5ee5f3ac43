import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { DockerEngine } from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import { busyboxImage } from '#test/busybox-image.ts'
import { dockerScope, type DockerScope } from '#test/docker.ts'
import { scriptSpec, spareSpec, watching, within, type EngineBed } from '#test/engine-bed.ts'
import { eventually } from '#test/eventually.ts'
import { initlessEngine } from '#test/initless-engine.ts'
import { socketRelay } from '#test/socket-relay.ts'
import { tempFolder } from '#test/temp.ts'
import { engineConformance } from './engine-conformance.ts'

/** A busy machine's daemon may hear late why a handler was killed. */
const OOM_NEWS_MS = 5_000

let scope: DockerScope
let image: string

before(async () => {
  scope = dockerScope()
  image = await busyboxImage(scope.docker, scope.run)
})
after(() => scope[Symbol.asyncDispose]())

let beds = 0

async function dockerBed(): Promise<EngineBed> {
  const folder = await tempFolder()
  const installation = `${scope.run}-${++beds}`
  scope.alsoRemove(`shoal=${installation}`)
  scope.alsoRemove(`shoal=${installation}-other`)
  const root = folder.join('h')
  await mkdir(root)
  return {
    installation,
    root,
    engine: (id, options) =>
      new DockerEngine({
        socketPath: options?.socketPath ?? '/var/run/docker.sock',
        installation: id,
        onWarning: options?.onWarning,
        oomNewsMs: options?.oomNewsMs,
        images: {
          load: async () => ({
            arch: 'amd64',
            docker: {
              ...(options?.images === false ? {} : { binary: { run: image, build: image } }),
              ...(options?.nodejs === true ? { nodejs: { run: image, build: image } } : {}),
            },
          }),
        },
      }),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

engineConformance('docker', dockerBed)

describe('engine docker: without docker-init', () => {
  it('handlers run without it, and the operator is told once', async () => {
    await using bed = await dockerBed()
    await using folder = await tempFolder()
    await using socket = await initlessEngine(folder.join('d.sock'))
    const warnings: string[] = []
    await using engine = bed.engine(bed.installation, {
      socketPath: socket.path,
      nodejs: true,
      onWarning: (text) => warnings.push(text),
    })
    for (const name of ['first', 'second']) {
      // Not binary: that one reaps by itself and asks for no init.
      const spec = await scriptSpec(bed, `echo ${name}; sleep 600`, { runtime: 'nodejs' })
      await engine.start(spec, within())
      await eventually(async () => (await engine.tail(spec.id, 100, within())).includes(name))
    }
    assert.equal(socket.refused(), 1)
    assert.equal(warnings.length, 1)
    assert.match(warnings[0] ?? '', /docker-init.*zombies/)
  })
})

describe('engine docker: the sandbox', () => {
  it('gives a handler no network, a read-only root, no privileges and a small /tmp', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(
      bed,
      `id -u
       touch /made 2>/dev/null && echo "root is writable"
       touch /shoal/made 2>/dev/null && echo "its folder is writable"
       touch /shoal/fn/made 2>/dev/null && echo "its bundle is writable"
       touch /tmp/made && echo "tmp is writable"
       dd if=/dev/zero of=/tmp/big bs=1M count=100 2>/dev/null || echo "tmp is bounded"
       ifconfig -a | { while read -r name rest; do case "$rest" in Link*) echo "link $name";; esac; done; }
       while read -r key value; do case "$key" in CapEff:|CapBnd:|NoNewPrivs:) echo "$key $value";; esac; done </proc/self/status
       sleep 600`,
    )
    await engine.start(spec, within())
    const lines = await eventually(async () => {
      const text = await engine.tail(spec.id, 4096, within())
      return text.includes('NoNewPrivs') && text.trim().split('\n')
    })
    assert.deepEqual(lines.toSorted(), [
      '65532',
      'CapBnd: 0000000000000000',
      'CapEff: 0000000000000000',
      'NoNewPrivs: 1',
      'link lo',
      'tmp is bounded',
      'tmp is writable',
    ])
  })

  it('reaches out only when its function says so', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation)
    const spec = await scriptSpec(bed, 'ifconfig -a; echo end; sleep 600', { network: 'outbound' })
    await engine.start(spec, within())
    await eventually(async () => (await engine.tail(spec.id, 4096, within())).includes('eth0'))
  })

  it('kills a handler that takes more memory than it may, and says that this was it', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation, { oomNewsMs: OOM_NEWS_MS })
    using watch = watching(engine)
    const spec = await scriptSpec(bed, 'exec tail -c 100m /dev/zero')
    await engine.start(spec, within())
    const [exit] = await eventually(() => watch.exits.length > 0 && watch.exits, {
      timeoutMs: 30_000,
    })
    assert.deepEqual(exit, { id: spec.id, exitCode: 137, oomKilled: true })
    assert.equal((await engine.list(within()))[0]?.oomKilled, true)
  })

  it('lets a handler have no more processes than it may', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation)
    const limits = { memoryMiB: 64, cpus: 1, pids: 8 }
    const script = 'i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i+1)); done; echo all; sleep 600'
    const spec = await scriptSpec(bed, script, { limits })
    await engine.start(spec, within())
    await eventually(async () => /fork/.test(await engine.tail(spec.id, 4096, within())))
  })

  it('asks the engine for exactly these limits, labels and log bounds', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation)
    const limits = { memoryMiB: 48, cpus: 0.25, pids: 17 }
    const spec = await scriptSpec(bed, 'sleep 600', { limits })
    await engine.start(spec, within())
    const { HostConfig: host, Config: config } = await scope.docker
      .getContainer(`shoal-${spec.id}`)
      .inspect()
    const memory = 48 * 1024 * 1024
    assert.deepEqual(
      [host.Memory, host.MemorySwap, host.NanoCpus, host.PidsLimit, host.NetworkMode],
      [memory, memory, 250_000_000, 17, 'none'],
    )
    assert.deepEqual(host.LogConfig?.Config, { 'max-size': '1m', 'max-file': '1' })
    assert.equal(host.RestartPolicy?.Name, 'no')
    assert.equal(config.Labels['shoal'], bed.installation)
    assert.equal(config.Labels['shoal.fn'], 'site/thermo')
    assert.equal(config.Labels['shoal.release'], 'r1-0a1b2c3d')
    assert.equal(config.Labels['shoal.handler'], spec.id)
    assert.equal(config.Labels['shoal.spec'], 'sha256:spec')
  })
})

describe('engine docker: other limits for a handler that runs', () => {
  it('kills it when it takes more memory than it may from now on', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation, { oomNewsMs: OOM_NEWS_MS })
    using watch = watching(engine)
    const script =
      'while [ ! -e /shoal/go ]; do sleep 0.02; done; exec dd if=/dev/zero of=/dev/null bs=60M count=1'
    const limits = { memoryMiB: 256, cpus: 1, pids: 32 }
    for (const memoryMiB of [128, 24]) {
      const spec = { ...(await spareSpec(bed, script)), limits }
      await engine.startSpare(spec, within())
      await engine.update(spec.id, { ...limits, memoryMiB }, within())
      await writeFile(join(spec.folder, 'go'), '')
      const exit = await eventually(() => watch.exits.find(({ id }) => id === spec.id), {
        timeoutMs: 30_000,
      })
      const survives = memoryMiB === 128
      assert.deepEqual([exit.exitCode, exit.oomKilled], survives ? [0, false] : [137, true])
    }
  })

  it('lets it have no more processes than it may from now on', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation)
    const script = `while [ ! -e /shoal/go ]; do sleep 0.02; done
       i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i+1)); done; echo all; sleep 600`
    const limits = { memoryMiB: 64, cpus: 1, pids: 64 }
    const spec = { ...(await spareSpec(bed, script)), limits }
    await engine.startSpare(spec, within())
    await engine.update(spec.id, { ...limits, pids: 8 }, within())
    await writeFile(join(spec.folder, 'go'), '')
    await eventually(async () => /fork/.test(await engine.tail(spec.id, 4096, within())))
  })

  it('has the engine keep exactly these, and refuses less memory than is in use', async () => {
    await using bed = await dockerBed()
    await using engine = bed.engine(bed.installation)
    const spec = await spareSpec(
      bed,
      'x=$(dd if=/dev/zero bs=1M count=12 | cat -v); echo up; sleep 600',
    )
    await engine.startSpare({ ...spec, limits: { memoryMiB: 200, cpus: 1, pids: 32 } }, within())
    await engine.update(spec.id, { memoryMiB: 90, cpus: 0.25, pids: 17 }, within())
    const container = scope.docker.getContainer(`shoal-${spec.id}`)
    const { HostConfig: host, Config: config } = await container.inspect()
    const memory = 90 * 1024 * 1024
    assert.deepEqual(
      [host.Memory, host.MemorySwap, host.NanoCpus, host.PidsLimit, host.NetworkMode],
      [memory, memory, 250_000_000, 17, 'none'],
    )
    assert.equal(config.Labels['shoal'], bed.installation)
    assert.equal(config.Labels['shoal.spare'], 'binary')
    assert.equal(config.Labels['shoal.fn'], undefined)
    await eventually(async () => (await engine.tail(spec.id, 100, within())).includes('up'))
    const less = engine.update(spec.id, { memoryMiB: 8, cpus: 0.25, pids: 17 }, within())
    await assert.rejects(less, { code: 'HANDLER_START', message: /update/ })
  })
})

describe('engine docker: when the daemon is out of reach', () => {
  it('says which socket does not answer', async () => {
    await using bed = await dockerBed()
    await using engine = new DockerEngine({
      socketPath: join(bed.root, 'no.sock'),
      installation: bed.installation,
      images: { load: async () => ({ arch: 'amd64' }) },
    })
    for (const call of [engine.list(within()), engine.version(within())]) {
      await assert.rejects(call, { code: 'ENGINE_UNAVAILABLE', message: /no\.sock.*dockerd/ })
    }
  })

  it('says so once, and reports the ends it has missed when the daemon is back', async () => {
    await using bed = await dockerBed()
    await using relay = await socketRelay(join(bed.root, 'relay.sock'), '/var/run/docker.sock')
    await using engine = bed.engine(bed.installation, { socketPath: relay.path })
    using watch = watching(engine)
    const script = 'while [ ! -e /shoal/end ]; do sleep 0.05; done; exit 9'
    const spec = await scriptSpec(bed, script)
    const kept = await scriptSpec(bed, 'sleep 600')
    const paused = await scriptSpec(bed, 'sleep 600')
    await engine.start(spec, within())
    await engine.start(kept, within())
    await engine.start(paused, within())
    await engine.pause(paused.id, within())
    await relay.cut()
    await eventually(() => watch.lost.length > 0)
    await assert.rejects(engine.list(within()), { code: 'ENGINE_UNAVAILABLE' })
    await writeFile(join(spec.folder, 'end'), '')
    await eventually(async () => {
      const { State } = await scope.docker.getContainer(`shoal-${spec.id}`).inspect()
      return State.Status === 'exited'
    })
    await relay.mend()
    await eventually(() => watch.exits.length > 0)
    assert.deepEqual(watch.exits, [{ id: spec.id, exitCode: 9, oomKilled: false }])
    assert.equal(watch.lost.length, 1)
    assert.ok(Fault.is(watch.lost[0], 'ENGINE_UNAVAILABLE'))
  })

  it('asks nothing about handlers that it could not start when the daemon is back', async () => {
    await using bed = await dockerBed()
    await using relay = await socketRelay(join(bed.root, 'relay.sock'), '/var/run/docker.sock')
    await using engine = bed.engine(bed.installation, { socketPath: relay.path })
    using watch = watching(engine)
    const failed = new Set<string>()
    for (let tries = 0; tries < 3; tries += 1) {
      const spec = await scriptSpec(bed, 'sleep 600')
      // Docker makes the container and cannot mount a file as its folder then.
      const start = engine.start({ ...spec, folder: join(spec.folder, 'fn/main.sh') }, within())
      await assert.rejects(start, { code: 'HANDLER_START' })
      failed.add(spec.id)
    }
    await relay.cut()
    await eventually(() => watch.lost.length > 0)
    await relay.mend()
    await using other = bed.engine(bed.installation)
    await eventually(async () => {
      await other.start(await scriptSpec(bed, 'exit 0'), within())
      return watch.exits.length > 0
    })
    assert.deepEqual(
      watch.exits.filter(({ id }) => failed.has(id)),
      [],
    )
  })
})
