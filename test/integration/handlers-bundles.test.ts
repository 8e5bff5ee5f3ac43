import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import fs, { mkdir, readFile, readdir, readlink, stat, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import { pack, type Header } from 'tar-stream'
import { BundleStore, type BundleStoreOptions } from '#agent/handlers/index.ts'
import { Fault } from '#shared/fault.ts'
import { collectBytes } from '#test/bytes.ts'
import { eventually } from '#test/eventually.ts'
import { tempFolder, type TempFolder } from '#test/temp.ts'

type Entry = Partial<Header> & { readonly name: string; readonly text?: string }

async function archive(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack()
  for (const { text = '', ...header } of entries) tar.entry(header, text)
  tar.finalize()
  const bytes = await collectBytes(tar)
  return promisify(zstdCompress)(bytes)
}

/** Meanwhile no file of this process grows beyond these bytes: as on a full disk, a write is cut short, the next one fails. */
async function withFileBytesMax(bytes: number, work: () => Promise<void>): Promise<void> {
  await limitFileBytes(String(bytes))
  try {
    await work()
  } finally {
    await limitFileBytes('unlimited')
  }
}

/** The next time that something is renamed in this process it fails, as on a disk that is about to die. */
function failRename(context: TestContext): void {
  const { mock } = context.mock.method(fs, 'rename', async () => {
    mock.restore()
    syncBuiltinESMExports()
    throw Object.assign(new Error('EIO: i/o error, rename'), { code: 'EIO' })
  })
  // Or those who have imported it by name would not see it.
  syncBuiltinESMExports()
}

async function limitFileBytes(soft: string): Promise<void> {
  const limits = ['--pid', String(process.pid), `--fsize=${soft}:unlimited`]
  await promisify(execFile)('prlimit', limits)
}

const digestOf = (letter: string): string => `sha256:${letter.repeat(64)}`
const A = digestOf('a')
const soon = (): AbortSignal => AbortSignal.timeout(20_000)

/** A store whose artifacts are what `put` gave it. */
async function bundleScope(changes: Partial<BundleStoreOptions> = {}) {
  const folder: TempFolder = await tempFolder()
  const root = folder.join('bundles')
  const fetched: string[] = []
  let delayMs = 0
  const source = {
    async fetch(digest: string, _: number, signal: AbortSignal): Promise<string> {
      fetched.push(digest)
      await sleep(delayMs, undefined, { signal })
      return folder.join(digest)
    },
  }
  const options = { folder: root, source, ...changes }
  return {
    root,
    fetched,
    options,
    store: await BundleStore.open(options),
    delay: (ms: number): void => {
      delayMs = ms
    },
    put: async (digest: string, entries: readonly Entry[]) =>
      writeFile(folder.join(digest), await archive(entries)),
    putRaw: async (digest: string, bytes: Buffer) => writeFile(folder.join(digest), bytes),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

describe('bundle store', () => {
  it('unpacks once, with modes and times that suit every handler', async () => {
    await using scope = await bundleScope()
    const mtime = new Date(1_000_000_000_000)
    await scope.put(A, [
      { name: 'bin/run', text: '#!/bin/sh\n', mode: 0o700, mtime },
      { name: './lib/deep/data.txt', text: 'data', mode: 0o600, mtime },
      { name: 'closed', type: 'directory', mode: 0o700 },
      { name: 'lib/link', type: 'symlink', linkname: '../bin/run' },
      { name: 'hard', type: 'link', linkname: 'bin/run' },
    ])
    const folder = await scope.store.ensure({ digest: A, bytes: 1 }, soon())
    assert.equal(folder, join(scope.root, 'a'.repeat(64)))
    const modeOf = async (path: string): Promise<number> =>
      (await stat(join(folder, path))).mode & 0o7777
    assert.equal(await modeOf('bin/run'), 0o755)
    assert.equal(await modeOf('lib/deep/data.txt'), 0o644)
    for (const path of ['.', 'bin', 'lib/deep', 'closed']) assert.equal(await modeOf(path), 0o755)
    assert.equal(await readlink(join(folder, 'lib/link')), '../bin/run')
    assert.equal(await readFile(join(folder, 'hard'), 'utf8'), '#!/bin/sh\n')
    assert.equal((await stat(join(folder, 'lib/deep/data.txt'))).mtimeMs, mtime.getTime())
    await scope.store.ensure({ digest: A, bytes: 1 }, soon())
    assert.deepEqual(scope.fetched, [A])
    assert.equal(scope.store.get(A), folder)
    assert.equal(scope.store.get(digestOf('b')), undefined)
  })

  it('does one work for all who ask at the same time, until the last of them gives up', async () => {
    await using scope = await bundleScope()
    await scope.put(A, [{ name: 'index.js', text: '1' }])
    scope.delay(200)
    const impatient = new AbortController()
    const first = scope.store.ensure({ digest: A, bytes: 1 }, impatient.signal)
    const second = scope.store.ensure({ digest: A, bytes: 1 }, soon())
    impatient.abort()
    await assert.rejects(first, { name: 'AbortError' })
    await second
    assert.deepEqual(scope.fetched, [A])

    const b = digestOf('b')
    await scope.put(b, [{ name: 'index.js', text: '1' }])
    const alone = new AbortController()
    const third = scope.store.ensure({ digest: b, bytes: 1 }, alone.signal)
    alone.abort()
    await assert.rejects(third, { name: 'AbortError' })
    await scope.store.ensure({ digest: b, bytes: 1 }, soon())
    assert.deepEqual(scope.fetched, [A, b, b])
    assert.deepEqual((await readdir(scope.root)).toSorted(), ['a'.repeat(64), 'b'.repeat(64)])
  })

  it('finds its bundles again, and removes what a crash left half done', async () => {
    await using scope = await bundleScope()
    await scope.put(A, [{ name: 'index.js', text: '1' }])
    await scope.store.ensure({ digest: A, bytes: 1 }, soon())
    await mkdir(join(scope.root, '.new-1234', 'sub'), { recursive: true })
    const again = await BundleStore.open(scope.options)
    assert.notEqual(again.get(A), undefined)
    assert.deepEqual(await readdir(scope.root), ['a'.repeat(64)])
  })

  it('removes the bundles that nobody retains', async () => {
    await using scope = await bundleScope()
    for (const letter of ['a', 'b', 'c']) {
      await scope.put(digestOf(letter), [{ name: 'sub/index.js', text: letter }])
      await scope.store.ensure({ digest: digestOf(letter), bytes: 1 }, soon())
    }
    const there: number[] = []
    const removed = await scope.store.retain((digest) => {
      there.push(readdirSync(scope.root).length)
      return digest === digestOf('b')
    })
    assert.deepEqual(removed.toSorted(), [A, digestOf('c')])
    // Each is asked for just before it would go: who wants it may have come while the one before was removed.
    assert.deepEqual(there, [3, 2, 2])
    assert.deepEqual(await readdir(scope.root), ['b'.repeat(64)])
    assert.equal(scope.store.get(A), undefined)
  })

  it('has what it could not remove, and removes it the next time', async (context) => {
    await using scope = await bundleScope()
    await scope.put(A, [{ name: 'index.js', text: '1' }])
    await scope.store.ensure({ digest: A, bytes: 1 }, soon())
    failRename(context)
    await assert.rejects(
      scope.store.retain(() => false),
      { code: 'EIO' },
    )
    assert.equal(await scope.store.ensure({ digest: A, bytes: 1 }, soon()), scope.store.get(A))
    assert.deepEqual(scope.fetched, [A])
    assert.deepEqual(await scope.store.retain(() => false), [A])
    assert.deepEqual(await readdir(scope.root), [])
  })

  it('takes a bundle that is there though nobody knows of it: it could not be written through at first', async () => {
    await using scope = await bundleScope()
    const target = join(scope.root, 'a'.repeat(64))
    await mkdir(target)
    await writeFile(join(target, 'index.js'), '1')
    await scope.put(A, [{ name: 'index.js', text: '1' }])
    assert.equal(await scope.store.ensure({ digest: A, bytes: 1 }, soon()), target)
    assert.deepEqual(await readdir(scope.root), ['a'.repeat(64)])
  })

  const HOSTILE: readonly { readonly name: string; readonly entries: readonly Entry[] }[] = [
    { name: 'a path that climbs out', entries: [{ name: '../out', text: 'x' }] },
    { name: 'a path that climbs out in its middle', entries: [{ name: 'a/../../out', text: 'x' }] },
    { name: 'an absolute path', entries: [{ name: '/etc/out', text: 'x' }] },
    {
      name: 'a link that climbs out',
      entries: [{ name: 'l', type: 'symlink', linkname: '../../etc/passwd' }],
    },
    {
      name: 'an absolute link',
      entries: [{ name: 'l', type: 'symlink', linkname: '/etc/passwd' }],
    },
    {
      name: 'links that climb out only together',
      entries: [
        { name: 'd1/d2/up', type: 'symlink', linkname: '../..' },
        { name: 'x', type: 'symlink', linkname: 'd1/d2/up/../..' },
      ],
    },
    {
      name: 'a file below a link',
      entries: [
        { name: 'd', type: 'directory' },
        { name: 'l', type: 'symlink', linkname: 'd' },
        { name: 'l/file', text: 'x' },
      ],
    },
    {
      name: 'a file in place of a link',
      entries: [
        { name: 'l', type: 'symlink', linkname: 'd' },
        { name: 'l', text: 'x' },
      ],
    },
    {
      name: 'a hard link to something else',
      entries: [{ name: 'l', type: 'link', linkname: '/etc/passwd' }],
    },
    {
      name: 'a device',
      entries: [{ name: 'null', type: 'character-device', devmajor: 1, devminor: 3 }],
    },
    { name: 'a pipe', entries: [{ name: 'p', type: 'fifo' }] },
  ]
  for (const { name, entries } of HOSTILE) {
    it(`refuses ${name}, and leaves nothing of it`, async () => {
      await using scope = await bundleScope()
      await scope.put(A, entries)
      const made = scope.store.ensure({ digest: A, bytes: 1 }, soon())
      await assert.rejects(made, (error) => Fault.is(error, 'BUNDLE_INVALID'))
      assert.deepEqual(await readdir(scope.root), [])
    })
  }

  it('refuses too many bytes, too many files, and archives that swell', async () => {
    await using scope = await bundleScope({ limits: { bytesMax: 10_000, filesMax: 3 } })
    const big = 'x'.repeat(6_000)
    await scope.put(A, [
      { name: 'a', text: big },
      { name: 'b', text: big },
    ])
    const many = digestOf('b')
    await scope.put(
      many,
      ['1', '2', '3', '4', '5'].map((name) => ({ name })),
    )
    const swells = digestOf('c')
    await scope.putRaw(swells, await promisify(zstdCompress)(Buffer.alloc(50_000_000)))
    for (const digest of [A, many, swells]) {
      await assert.rejects(scope.store.ensure({ digest, bytes: 1 }, soon()), {
        code: 'BUNDLE_INVALID',
      })
    }
    assert.deepEqual(await readdir(scope.root), [])
  })

  it('refuses what is no archive at all, or only the beginning of one', async () => {
    await using scope = await bundleScope()
    await scope.putRaw(A, Buffer.from('no archive'))
    const cut = digestOf('b')
    const whole = await archive([{ name: 'a', text: 'x'.repeat(100_000) }])
    await scope.putRaw(cut, whole.subarray(0, whole.length - 20))
    for (const digest of [A, cut]) {
      await assert.rejects(scope.store.ensure({ digest, bytes: 1 }, soon()), {
        code: 'BUNDLE_INVALID',
      })
    }
    assert.deepEqual(await readdir(scope.root), [])
  })

  it('survives being given up in the middle of an archive, and leaves nothing of it', async () => {
    await using scope = await bundleScope()
    const entries = Array.from({ length: 1_500 }, (_, at) => ({ name: `${at}.js`, text: 'x' }))
    await scope.put(A, entries)
    const giveUp = new AbortController()
    const made = scope.store.ensure({ digest: A, bytes: 1 }, giveUp.signal)
    await eventually(async () => {
      const [folder = 'none yet'] = await readdir(scope.root)
      return (await readdir(join(scope.root, folder))).length > 0
    })
    giveUp.abort()
    await assert.rejects(made, { name: 'AbortError' })
    await eventually(async () => (await readdir(scope.root)).length === 0)
  })

  it('survives a disk that is full in the middle of a file, and says so', async () => {
    await using scope = await bundleScope()
    await scope.put(A, [{ name: 'a', text: 'x'.repeat(500_000) }, { name: 'b' }])
    await withFileBytesMax(20_000, () =>
      assert.rejects(scope.store.ensure({ digest: A, bytes: 1 }, soon()), { code: 'STORAGE' }),
    )
    assert.deepEqual(await readdir(scope.root), [])
  })

  it('never takes a file that was cut short for a whole one', async () => {
    await using scope = await bundleScope()
    await scope.put(A, [{ name: 'a', text: 'x'.repeat(30_000) }])
    await withFileBytesMax(29_000, () =>
      assert.rejects(scope.store.ensure({ digest: A, bytes: 1 }, soon()), { code: 'STORAGE' }),
    )
    const folder = await scope.store.ensure({ digest: A, bytes: 1 }, soon())
    assert.equal((await stat(join(folder, 'a'))).size, 30_000)
  })
})
