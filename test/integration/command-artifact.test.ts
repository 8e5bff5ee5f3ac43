import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  ensureIdentity,
  NatsArtifactSource,
  NatsLink,
  type ArtifactSourceOptions,
} from '#agent/command/index.ts'
import { systemClock } from '#shared/clock.ts'
import { Fault, type FaultCode } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { tempFolder } from '#test/temp.ts'
import { TinyController } from '#test/tiny-controller.ts'

const log = { debug() {}, info() {}, warn() {}, error() {} }
const KIB = 1024

async function sourceScope(options: Partial<ArtifactSourceOptions> = {}) {
  await using stack = new AsyncDisposableStack()
  const controller = stack.use(await TinyController.start())
  const folder = stack.use(await tempFolder())
  const identity = await ensureIdentity(
    {
      folder: folder.path,
      fs,
      clock: systemClock,
      log,
      joinToken: controller.token(),
      name: 'edge-1',
      arch: 'amd64',
      labels: {},
    },
    AbortSignal.timeout(30_000),
  )
  const link = stack.use(new NatsLink({ identity, onConnection: () => {}, onUp: () => {}, log }))
  link.start()
  const openSource = () =>
    NatsArtifactSource.open({
      folder: folder.join('artifacts'),
      link,
      log,
      rangeBytes: 64 * KIB,
      ...options,
    })
  const owned = stack.move()
  return {
    controller,
    link,
    files: folder.join('artifacts'),
    source: await openSource(),
    openSource,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

const never = new AbortController().signal
const is = (code: FaultCode) => (error: unknown) => Fault.is(error, code)

/** Not `deepEqual`: the text of its failure for files of this size takes an hour to make. */
async function assertContent(path: string, content: Buffer): Promise<void> {
  assert.ok((await fs.readFile(path)).equals(content), `${path} has other bytes`)
}

describe('an artifact', () => {
  it('comes in ranges and is the same, byte for byte', async () => {
    await using scope = await sourceScope()
    const { controller, source } = scope
    for (const size of [1, 64 * KIB, 64 * KIB + 1, 1_000_003]) {
      const content = randomBytes(size)
      const { digest, bytes } = controller.addArtifact(content)
      controller.ranges.length = 0
      const path = await source.fetch(digest, bytes, never)
      await assertContent(path, content)
      assert.equal(controller.ranges.length, Math.ceil(size / (64 * KIB)))
    }
  })

  it('asked for twice at once is fetched once; asked for again it is there', async () => {
    await using scope = await sourceScope()
    const { controller, source } = scope
    const { digest, bytes } = controller.addArtifact(randomBytes(300 * KIB))
    const [first, second] = await Promise.all([
      source.fetch(digest, bytes, never),
      source.fetch(digest, bytes, never),
    ])
    assert.equal(first, second)
    assert.equal(await source.fetch(digest, bytes, never), first)
    assert.equal(controller.ranges.length, 5)
  })

  it('is fetched beside many others, which come and go meanwhile', async () => {
    await using scope = await sourceScope()
    const { controller, source, files } = scope
    const old = new Date(Date.now() - 3_600_000)
    for (let round = 0; round < 5; round += 1) {
      for (let at = 0; at < 30; at += 1) {
        const path = join(files, randomBytes(32).toString('hex'))
        await fs.writeFile(path, 'x')
        await fs.utimes(path, old, old)
      }
      const artifacts = Array.from({ length: 30 }, () => controller.addArtifact(randomBytes(10)))
      await Promise.all(artifacts.map(({ digest, bytes }) => source.fetch(digest, bytes, never)))
    }
  })

  it('is completed after nats-server was killed in the middle, without asking for what had come', async () => {
    await using scope = await sourceScope()
    const { controller, source, link } = scope
    const content = randomBytes(2_000 * KIB)
    const { digest, bytes } = controller.addArtifact(content)
    const middle = Promise.withResolvers<void>()
    controller.onRange = async (range, chunk) => {
      if (range.offset >= bytes / 2) middle.resolve()
      await sleep(10)
      return chunk
    }
    const fetched = source.fetch(digest, bytes, never)
    await middle.promise
    await controller.nats.kill('SIGKILL')
    await eventually(() => !link.connected)
    const asked = controller.ranges.length
    assert.ok(asked < 32, `${asked} ranges before the cut`)
    await controller.nats.start()
    await assertContent(await fetched, content)
    const again = controller.ranges.slice(asked).map(({ offset }) => offset)
    assert.ok(again.length > 0)
    assert.ok(Math.min(...again) >= bytes / 2 - 6 * 64 * KIB, `resumed at ${Math.min(...again)}`)
  })

  it('goes on where it ended after the agent was started again', async () => {
    await using scope = await sourceScope()
    const { controller, source } = scope
    const content = randomBytes(1_000 * KIB)
    const { digest, bytes } = controller.addArtifact(content)
    const stop = new AbortController()
    controller.onRange = (range, chunk) => {
      if (range.offset >= bytes / 2) stop.abort(new Error('agent ends'))
      return chunk
    }
    await assert.rejects(source.fetch(digest, bytes, stop.signal), /agent ends/)
    const asked = controller.ranges.length
    const path = await (await scope.openSource()).fetch(digest, bytes, never)
    await assertContent(path, content)
    assert.ok(Math.min(...controller.ranges.slice(asked).map(({ offset }) => offset)) > 0)
  })

  it('with a damaged beginning from before a power cut is fetched anew', async () => {
    await using scope = await sourceScope()
    const { controller, source, files } = scope
    const content = randomBytes(200 * KIB)
    const { digest, bytes } = controller.addArtifact(content)
    const part = `${files}/${digest.slice(7)}.part`
    for (const left of [Buffer.alloc(100 * KIB), Buffer.alloc(bytes), Buffer.alloc(bytes + 1)]) {
      await fs.writeFile(part, left)
      const path = await source.fetch(digest, bytes, never)
      await assertContent(path, content)
      await fs.rm(path)
    }
  })

  it('that is damaged on the disk after it was fetched is fetched again', async () => {
    await using scope = await sourceScope()
    const { controller, source } = scope
    const content = randomBytes(100 * KIB)
    const { digest, bytes } = controller.addArtifact(content)
    const path = await source.fetch(digest, bytes, never)
    await fs.writeFile(path, Buffer.alloc(bytes))
    assert.equal(await source.fetch(digest, bytes, never), path)
    await assertContent(path, content)
  })

  it('whose bytes differ from its digest is refused and deleted', async () => {
    await using scope = await sourceScope()
    const { controller, source, files } = scope
    const { digest, bytes } = controller.addArtifact(randomBytes(200 * KIB))
    controller.onRange = (range, chunk) => {
      const wrong = Buffer.from(chunk)
      if (range.offset > 0) wrong.writeUInt8(wrong.readUInt8(7) ^ 1, 7)
      return wrong
    }
    await assert.rejects(source.fetch(digest, bytes, never), is('ARTIFACT_DIGEST'))
    assert.deepEqual(await fs.readdir(files), [])
  })

  it('whose size differs from the command is refused', async () => {
    await using scope = await sourceScope()
    const { controller, source } = scope
    const { digest, bytes } = controller.addArtifact(randomBytes(200 * KIB))
    for (const wrong of [bytes - 1, bytes + 1]) {
      await assert.rejects(source.fetch(digest, wrong, never), is('ARTIFACT_DIGEST'))
    }
  })

  it('that nobody has is unavailable at once', async () => {
    await using scope = await sourceScope()
    const digest = `sha256:${'0'.repeat(64)}`
    await assert.rejects(scope.source.fetch(digest, 5, never), is('ARTIFACT_UNAVAILABLE'))
  })

  it('is given up when nothing comes for the time allowed', async () => {
    await using scope = await sourceScope({ stallMs: 300 })
    const { controller, source } = scope
    const { digest, bytes } = controller.addArtifact(randomBytes(10))
    await controller.nats.kill()
    const startedMs = performance.now()
    await assert.rejects(source.fetch(digest, bytes, never), is('ARTIFACT_UNAVAILABLE'))
    const tookMs = performance.now() - startedMs
    assert.ok(tookMs > 250 && tookMs < 8_000, `${tookMs} ms`)
  })

  it('that does not fit on the disk is a STORAGE fault, and its part is given back', async () => {
    await using scope = await sourceScope()
    const { controller, source, files } = scope
    const { digest, bytes } = controller.addArtifact(randomBytes(200 * KIB))
    // Every write to this device fails with ENOSPC.
    await fs.symlink('/dev/full', `${files}/${digest.slice(7)}.part`)
    await assert.rejects(source.fetch(digest, bytes, never), is('STORAGE'))
    assert.deepEqual(await fs.readdir(files), [])
  })
})
