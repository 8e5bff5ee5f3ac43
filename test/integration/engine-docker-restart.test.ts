import assert from 'node:assert/strict'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import Docker from 'dockerode'
import { DockerEngine } from '#agent/handlers/index.ts'
import { startDockerd } from '#deploy/bootstrap/index.ts'
import { busyboxImage } from '#test/busybox-image.ts'
import { scriptSpec, watching, within } from '#test/engine-bed.ts'
import { eventually } from '#test/eventually.ts'
import { tempFolder } from '#test/temp.ts'
import { unmountBelow } from '#test/unmount.ts'

it(
  'a paused handler when dockerd is killed: its end is reported, and what is left of it can be removed',
  {
    timeout: 240_000,
  },
  async () => {
    await using folder = await tempFolder()
    await using after = new AsyncDisposableStack()
    after.defer(() => unmountBelow(folder.path))
    const socketPath = folder.join('d.sock')
    const options = { socketPath, data: folder.join('data') }
    await mkdir(options.data)
    const dockerd = await startDockerd(options, AbortSignal.timeout(60_000))
    assert.ok(dockerd !== undefined)
    after.defer(async () => void (await dockerd.stop()))
    const image = await busyboxImage(new Docker({ socketPath }), 'shoal-test-restart')
    const images = { binary: { run: image, build: image } }
    const load = async () => ({ arch: 'amd64' as const, docker: images })
    await using engine = new DockerEngine({ socketPath, installation: 'test', images: { load } })
    using watch = watching(engine)
    const root = folder.join('h')
    const paused = await scriptSpec({ root }, 'sleep 600')
    const running = await scriptSpec({ root }, 'sleep 600')
    for (const spec of [paused, running]) await engine.start(spec, within())
    await engine.pause(paused.id, within())

    process.kill(
      Number(await readFile(join(options.data, 'docker/dockerd.pid'), 'utf8')),
      'SIGKILL',
    )
    await eventually(() => watch.lost.length > 0)
    await eventually(() => dockerd.ensureRunning(within()), { timeoutMs: 60_000 })
    await eventually(() => watch.exits.length === 2, { timeoutMs: 60_000 })
    const ended = watch.exits.map(({ id }) => id).toSorted()
    assert.deepEqual(ended, [paused.id, running.id].toSorted())
    for (const { id } of [paused, running]) await engine.stop(id, 0, within())
    assert.deepEqual(await engine.list(within()), [])
  },
)

it('what a containerd that dockerd takes for hung says about itself is beside its log', async () => {
  await using folder = await tempFolder()
  await using after = new AsyncDisposableStack()
  after.defer(() => unmountBelow(folder.path))
  const data = folder.join('data')
  await mkdir(data)
  const options = { socketPath: folder.join('d.sock'), data }
  const dockerd = await startDockerd(options, AbortSignal.timeout(60_000))
  assert.ok(dockerd !== undefined)
  after.defer(async () => void (await dockerd.stop()))

  const pid = await readFile(join(data, 'docker/exec/containerd/containerd.pid'), 'utf8')
  process.kill(Number(pid), 'SIGUSR1') // As dockerd does before it kills and replaces it.
  const stacks = join(data, 'log', `containerd.${pid.trim()}.stacks.log`)
  await eventually(async () => /goroutine/.test(await readFile(stacks, 'utf8').catch(() => '')))
})
