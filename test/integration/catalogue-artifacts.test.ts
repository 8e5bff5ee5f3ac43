import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readdir, utimes, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { ArtifactStore, Catalogue, type Builder } from '#controller/catalogue/index.ts'
import { EventHub } from '#controller/events/index.ts'
import { SqliteStore } from '#controller/store/index.ts'
import { systemClock } from '#shared/clock.ts'
import { Fault } from '#shared/fault.ts'
import { tempFolder, type TempFolder } from '#test/temp.ts'

const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const HOUR_MS = 3_600_000
const never = new AbortController().signal

async function fileOf(folder: TempFolder, bytes: Buffer) {
  const file = folder.join(randomBytes(4).toString('hex'))
  await writeFile(file, bytes)
  return { file, digest: digestOf(bytes), bytes: bytes.length }
}

/** Puts and lets go. */
async function put(store: ArtifactStore, file: string, digest: string, bytes: number) {
  using held = store.hold({ digest, bytes })
  await store.put(held, file)
}

it('bytes are found by their digest, in ranges', async () => {
  await using folder = await tempFolder()
  const store = await ArtifactStore.open(folder.join('artifacts'))
  const content = randomBytes(700_000)
  const { file, digest, bytes } = await fileOf(folder, content)
  await put(store, file, digest, bytes)
  await put(store, file, digest, bytes)
  const parts: Buffer[] = []
  for (let offset = 0; offset < bytes; offset += 262_144) {
    const { data, total } = await store.readRange(digest, offset, 262_144)
    assert.equal(total, bytes)
    parts.push(data)
  }
  assert.equal(parts.length, 3)
  assert.ok(Buffer.concat(parts).equals(content))
  assert.equal((await store.readRange(digest, bytes, 10)).data.length, 0)
  await assert.rejects(store.readRange(digestOf(Buffer.from('other')), 0, 1), {
    code: 'ARTIFACT_UNAVAILABLE',
  })
})

it('bytes that are not what was announced are refused and leave nothing', async () => {
  await using folder = await tempFolder()
  const store = await ArtifactStore.open(folder.join('artifacts'))
  const { file, bytes } = await fileOf(folder, Buffer.from('mine'))
  const wrong = digestOf(Buffer.from('yours'))
  await assert.rejects(put(store, file, wrong, bytes), { code: 'ARTIFACT_DIGEST' })
  const right = digestOf(Buffer.from('mine'))
  await assert.rejects(put(store, file, right, bytes - 1), { code: 'ARTIFACT_DIGEST' })
  assert.equal(await store.has(wrong), false)
  assert.equal(await store.has(right), false)
  assert.deepEqual(await readdir(folder.join('artifacts', 'tmp')), [])
})

it('what a crash left half written is gone at the next start, and a short file is written anew', async () => {
  await using folder = await tempFolder()
  const path = folder.join('artifacts')
  const store = await ArtifactStore.open(path)
  const { file, digest, bytes } = await fileOf(folder, Buffer.from('whole'))
  await put(store, file, digest, bytes)
  await writeFile(folder.join('artifacts', 'tmp', 'half'), 'ha')
  const hex = digest.slice('sha256:'.length)
  await writeFile(folder.join('artifacts', 'sha256', hex.slice(0, 2), hex), 'wh')
  const again = await ArtifactStore.open(path)
  assert.deepEqual(await readdir(folder.join('artifacts', 'tmp')), [])
  await put(again, file, digest, bytes)
  assert.equal((await again.readRange(digest, 0, 100)).data.toString(), 'whole')
})

it('garbage is what nobody names, is old, and is not just being written', async () => {
  await using folder = await tempFolder()
  const store = await ArtifactStore.open(folder.join('artifacts'))
  const made = await Promise.all(
    ['named', 'young', 'held', 'old'].map((text) => fileOf(folder, Buffer.from(text))),
  )
  const [named, young, held, old] = made.map(({ digest }) => digest)
  for (const { file, digest, bytes } of made) {
    await put(store, file, digest, bytes)
    const hex = digest.slice('sha256:'.length)
    const target = folder.join('artifacts', 'sha256', hex.slice(0, 2), hex)
    if (digest !== young) await utimes(target, new Date(0), new Date(0))
  }
  using hold = store.hold({ digest: held ?? '', bytes: 4 })
  const sweep = () =>
    store.sweep(async (digest) => digest === named, { olderThanMs: HOUR_MS, nowMs: Date.now() })
  assert.deepEqual(await sweep(), [old])
  assert.equal(await store.has(young ?? ''), true)
  hold[Symbol.dispose]()
  assert.deepEqual(await sweep(), [held])
})

it('the same bundle as the newest release is that release; else there is a new one', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  const artifacts = await ArtifactStore.open(folder.join('artifacts'))
  const noBuilder: Builder = { build: () => Promise.reject(new Fault('BUILD_FAILED', 'no')) }
  const events = new EventHub()
  const announced: string[] = []
  events.subscribe((event) => announced.push(event.type))
  const catalogue = new Catalogue({
    store,
    artifacts,
    builder: noBuilder,
    events,
    clock: systemClock,
  })
  const one = await fileOf(folder, Buffer.from('one'))
  const two = await fileOf(folder, Buffer.from('two'))
  const built = {
    ...one,
    runtime: 'nodejs' as const,
    entry: 'index.js',
    sourceHash: 's',
    cached: false,
    arch: 'any' as const,
  }
  const publish = async (different: Partial<typeof built>) => {
    const { release, cached } = await catalogue.publish('sieve', { ...built, ...different })
    return [release.number, cached]
  }
  assert.deepEqual(await publish({}), [1, false])
  assert.deepEqual(await publish({ cached: true }), [1, true])
  assert.deepEqual(await publish({ entry: 'other.js' }), [2, false])
  assert.deepEqual(await publish({ ...two }), [3, false])
  // Back to the first bundle: it is not the newest, so it is a release of its own.
  assert.deepEqual(await publish({}), [4, false])
  assert.equal(announced.length, 4)
  await assert.rejects(
    catalogue.deploy('sieve', { kind: 'url', url: '' }, { arch: 'amd64' }, () => undefined, never),
    { code: 'BUILD_FAILED' },
  )
  assert.equal((await store.releases('sieve')).length, 4, 'a build that fails changes nothing')
  await store.transaction((tx) => tx.deleteFunction('sieve'))
  assert.deepEqual(
    (await catalogue.collectGarbage(-1)).toSorted(),
    [one.digest, two.digest].toSorted(),
  )
})
