import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmod, mkdir, readFile, readlink, symlink, utimes, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { it } from 'node:test'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { zstdDecompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { tempFolder } from '#test/temp.ts'
import { packBundle, packTar } from '../../controller/build/bundle.ts'
import { hashTree, type HashContext } from '../../controller/build/hash.ts'
import { readTree, type TreeEntry } from '../../controller/build/tree.ts'
import { TreeWriter } from '../../controller/build/tree-writer.ts'
import { unpackTar } from '../../controller/build/unpack.ts'

const never = new AbortController().signal

/** A tree as plain data: path to content, link target, or folder. */
type Tree = Readonly<Record<string, Node>>
type Node =
  | { readonly file: Uint8Array; readonly executable: boolean }
  | { readonly link: string }
  | { readonly folder: true }

const name = fc
  .oneof(
    fc.string({ minLength: 1, maxLength: 12 }),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }),
    fc.constantFrom('a', 'b', 'A', 'x'.repeat(120), '-', '.hidden'),
  )
  // Nor what is a drive elsewhere: such paths are refused.
  .filter((text) => !/[/\0]|^[A-Za-z]:/.test(text) && !['.', '..'].includes(text))
  .filter((text) => text.isWellFormed())
const node: fc.Arbitrary<Node> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ file: fc.uint8Array({ maxLength: 2000 }), executable: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.constant({ folder: true } as const) },
  { weight: 1, arbitrary: fc.record({ link: fc.constantFrom('a', 'b/c', 'no where') }) },
)
const paths = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'))

/** Entries in any order, without those that lie behind a file or link of the same tree. */
const trees: fc.Arbitrary<Tree> = fc
  .array(fc.tuple(paths, node), { maxLength: 12 })
  .map((entries) => {
    const tree: Record<string, Node> = {}
    for (const [at, entry] of entries) {
      const taken = Object.keys(tree)
      const clash = taken.some((other) => other.startsWith(`${at}/`) || other === at)
      const blocked = taken.some(
        (other) => at.startsWith(`${other}/`) && !('folder' in (tree[other] ?? {})),
      )
      if (!clash && !blocked) tree[at] = entry
    }
    return tree
  })

async function write(root: string, tree: Tree, order: readonly string[]): Promise<void> {
  for (const at of order) {
    const entry = tree[at]
    assert.ok(entry)
    const full = path.join(root, at)
    if ('folder' in entry) await mkdir(full, { recursive: true })
    else {
      await mkdir(path.dirname(full), { recursive: true })
      if ('link' in entry) await symlink(entry.link, full)
      else {
        await writeFile(full, entry.file)
        await chmod(full, entry.executable ? 0o755 : 0o600)
      }
    }
  }
}

/** What is on disk, with contents. */
async function read(root: string): Promise<unknown[]> {
  const result: unknown[] = []
  for (const entry of await readTree(root)) {
    const full = path.join(root, entry.path)
    if (entry.kind === 'file')
      result.push({ ...entry, text: (await readFile(full)).toString('hex') })
    else if (entry.kind === 'link') result.push({ ...entry, target: await readlink(full) })
    else result.push(entry)
  }
  return result
}

async function bundleOf(root: string, file: string): Promise<{ digest: string; content: Buffer }> {
  const packed = await packBundle(root, await readTree(root), file, {}, never)
  const content = await readFile(file)
  assert.equal(packed.bytes, content.length)
  assert.equal(packed.digest, `sha256:${createHash('sha256').update(content).digest('hex')}`)
  return { digest: packed.digest, content }
}

it('any tree comes out of its bundle as it went in, and gives the same bytes whenever it is packed', async () => {
  let trials = 0
  await fc.assert(
    fc.asyncProperty(trees, async (tree) => {
      trials += 1
      await using temp = await tempFolder()
      const [one, two, out] = [temp.join('one'), temp.join('two'), temp.join('out')]
      for (const folder of [one, two, out]) await mkdir(folder)
      const order = Object.keys(tree)
      await write(one, tree, order)
      await write(two, tree, order.toReversed())
      for (const entry of await readTree(two)) {
        if (entry.kind === 'file') await utimes(path.join(two, entry.path), 1, 1)
      }
      const first = await bundleOf(one, temp.join('1.tar.zst'))
      const second = await bundleOf(two, temp.join('2.tar.zst'))
      assert.equal(first.digest, second.digest)
      assert.deepEqual(first.content, second.content)
      const tar = Readable.from([zstdDecompressSync(first.content)])
      await unpackTar(tar, [], new TreeWriter(out), {}, never)
      assert.deepEqual(await read(out), await read(one))
    }),
    { numRuns: 60 },
  )
  assert.ok(trials >= 60)
})

it('a bundle holds nothing of its maker: no times, no owners, only modes 644 and 755', async () => {
  await using temp = await tempFolder()
  await mkdir(temp.join('src'))
  await writeFile(temp.join('src/fn.sh'), '#!/bin/sh', { mode: 0o600 })
  await writeFile(temp.join('src/secret'), 's', { mode: 0o640 })
  const tree = await readTree(temp.join('src'))
  const tar = await buffer(packTar(temp.join('src'), tree, { executable: 'fn.sh' }, never))
  const header = (at: number) => ({
    name: tar.toString('latin1', at, at + 100).replace(/\0.*/s, ''),
    mode: tar.toString('latin1', at + 100, at + 107),
    owner: tar.toString('latin1', at + 108, at + 123),
    time: tar.toString('latin1', at + 136, at + 147),
    names: tar.toString('latin1', at + 265, at + 329).replaceAll('\0', ''),
  })
  const common = { owner: '000000 \x000000000', time: '00000000000', names: '' }
  const owners = { ...common, owner: header(0).owner }
  assert.match(owners.owner, /^[0 \0]+$/)
  assert.deepEqual(header(0), { ...owners, name: 'fn.sh', mode: '000755 ' })
  assert.deepEqual(header(1024), { ...owners, name: 'secret', mode: '000644 ' })
})

it('a file that changes while it is packed is an error, not a broken bundle', async () => {
  await using temp = await tempFolder()
  await mkdir(temp.join('src'))
  await writeFile(temp.join('src/a'), 'twelve bytes')
  const tree: TreeEntry[] = [{ kind: 'file', path: 'a', executable: false, bytes: 5 }]
  await assert.rejects(
    packBundle(temp.join('src'), tree, temp.join('b'), {}, AbortSignal.timeout(5_000)),
    /[Ss]ize mismatch|changed/,
  )
})

const CONTEXT: HashContext = { runtime: 'nodejs', entry: 'a', builder: 'none', arch: 'any' }

it('the source hash changes with anything that changes the bundle, and with nothing else', async () => {
  await using temp = await tempFolder()
  const root = temp.join('src')
  await mkdir(path.join(root, 'd'), { recursive: true })
  await writeFile(path.join(root, 'a'), '1')
  await writeFile(path.join(root, 'd/b'), '2')
  await symlink('a', path.join(root, 'l'))
  const hash = async (context: Partial<HashContext> = {}) =>
    hashTree(root, await readTree(root), { ...CONTEXT, ...context }, never)
  const base = await hash()
  assert.match(base, /^sha256:[0-9a-f]{64}$/)
  await utimes(path.join(root, 'a'), 5, 5)
  await chmod(path.join(root, 'a'), 0o600)
  assert.equal(await hash(), base)
  const others = new Set([base])
  const differs = async (what: string, value: string) => {
    assert.ok(!others.has(value), `${what} changes nothing`)
    others.add(value)
  }
  await differs('runtime', await hash({ runtime: 'python3' }))
  await differs('entry', await hash({ entry: 'd/b' }))
  await differs('builder', await hash({ builder: 'sha256:1' }))
  await differs('arch', await hash({ arch: 'arm64' }))
  await chmod(path.join(root, 'a'), 0o700)
  await differs('mode', await hash())
  await writeFile(path.join(root, 'a'), '12')
  await writeFile(path.join(root, 'd/b'), '')
  await differs('content', await hash())
  await writeFile(path.join(root, 'c'), '')
  await differs('a new file', await hash())
  await symlink('c', path.join(root, 'l2'))
  await differs('a new link', await hash())
  assert.equal(others.size, 9)
})
