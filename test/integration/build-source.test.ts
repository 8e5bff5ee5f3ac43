import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import { it } from 'node:test'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { strToU8, zipSync, type Zippable } from 'fflate'
import { pack, type Header } from 'tar-stream'
import { LIMITS } from '#shared/limits.ts'
import { Fault } from '#shared/fault.ts'
import { tempFolder } from '#test/temp.ts'
import type { Source } from '../../controller/build/model.ts'
import { acquireSource } from '../../controller/build/source.ts'
import { readTree } from '../../controller/build/tree.ts'

const FETCH = { timeoutMs: 5_000, redirectsMax: 2 }
const never = new AbortController().signal

type TarPart = Partial<Header> & { readonly name: string; readonly text?: string }

async function tarOf(parts: readonly TarPart[]): Promise<Buffer> {
  const tar = pack()
  for (const { text = '', ...header } of parts) tar.entry(header, text)
  tar.finalize()
  return buffer(Readable.from(tar))
}

function stream(content: Uint8Array): Source {
  return { kind: 'stream', type: 'tar', body: Readable.from([content]) }
}

/** What a source unpacks to: one line per entry, `*` for executable. */
async function unpacked(source: Source): Promise<string[]> {
  await using work = await tempFolder()
  const root = await acquireSource(source, work.path, FETCH, never)
  return (await readTree(root)).map((entry) => {
    if (entry.kind === 'folder') return `${entry.path}/`
    if (entry.kind === 'link') return `${entry.path} -> ${entry.target}`
    return `${entry.path}${entry.executable ? '*' : ''} ${entry.bytes}`
  })
}

async function refusal(source: Source): Promise<Fault> {
  const outcome = await unpacked(source).catch((error: unknown) => error)
  assert.ok(Fault.is(outcome, 'BUNDLE_INVALID'), `taken, or another error: ${String(outcome)}`)
  return outcome
}

const files: TarPart[] = [
  { name: 'index.js', text: 'hello', mode: 0o600 },
  { name: 'bin/', type: 'directory' },
  { name: 'bin/tool', text: '#!', mode: 0o700 },
]

it('a tar keeps its files and whether they are executable', async () => {
  assert.deepEqual(await unpacked(stream(await tarOf(files))), [
    'bin/',
    'bin/tool* 2',
    'index.js 5',
  ])
})

it('a gzipped tar is recognised by its bytes, whatever was said', async () => {
  const tar = gzipSync(await tarOf(files))
  assert.deepEqual(await unpacked(stream(tar)), ['bin/', 'bin/tool* 2', 'index.js 5'])
})

it('a zip without folder entries gets the parents made, and modes are kept', async () => {
  const zip: Zippable = {
    'fn.sh': [strToU8('#!/bin/sh'), { os: 3, attrs: 0o100755 << 16 }],
    'lib/deep/a.txt': [strToU8('a'), { os: 3, attrs: 0o100644 << 16 }],
    'plain.txt': strToU8('no mode'),
  }
  assert.deepEqual(await unpacked(stream(zipSync(zip))), [
    'fn.sh* 9',
    'lib/',
    'lib/deep/',
    'lib/deep/a.txt 1',
    'plain.txt 7',
  ])
})

it('links inside the tree are kept, in tar and zip; hard links become files', async () => {
  const tar = await tarOf([
    { name: 'a/x', text: 'xx' },
    { name: 'l', type: 'symlink', linkname: 'a/x' },
    { name: 'a/up', type: 'symlink', linkname: '../l' },
    { name: 'h', type: 'link', linkname: 'a/x' },
  ])
  assert.deepEqual(await unpacked(stream(tar)), ['a/', 'a/up -> ../l', 'a/x 2', 'h 2', 'l -> a/x'])
  const zip = zipSync({
    a: strToU8('1'),
    l: [strToU8('a'), { os: 3, attrs: 0o120777 << 16 }],
  })
  assert.deepEqual(await unpacked(stream(zip)), ['a 1', 'l -> a'])
})

it('when all lies in one folder, that folder is the function', async () => {
  const tar = await tarOf([
    { name: 'thermo-main/', type: 'directory' },
    { name: 'thermo-main/fn.py', text: 'x' },
    { name: '.DS_Store', text: 'x' },
    { name: '__MACOSX/thermo-main/._fn.py', text: 'x' },
  ])
  assert.deepEqual(await unpacked(stream(tar)), ['fn.py 1'])
})

it('one folder that is a Python package, or holds dependencies, stays', async () => {
  const python = await tarOf([{ name: 'fn/__init__.py', text: 'x' }])
  assert.deepEqual(await unpacked(stream(python)), ['fn/', 'fn/__init__.py 1'])
  const modules = await tarOf([{ name: 'node_modules/a/index.js', text: 'x' }])
  assert.equal((await unpacked(stream(modules)))[0], 'node_modules/')
})

it('version control and byte code are left out', async () => {
  const tar = await tarOf([
    { name: 'fn.py', text: 'x' },
    { name: '.git/config', text: 'x' },
    { name: '__pycache__/fn.cpython-311.pyc', text: 'x' },
  ])
  assert.deepEqual(await unpacked(stream(tar)), ['fn.py 1'])
})

const HOSTILE: { readonly name: string; readonly parts: TarPart[]; readonly says: RegExp }[] = [
  { name: 'a path that climbs out', parts: [{ name: '../evil' }], says: /"\.\.\/evil"/ },
  { name: 'an absolute path', parts: [{ name: '/etc/evil' }], says: /"\/etc\/evil"/ },
  {
    name: 'a link that points out',
    parts: [{ name: 'l', type: 'symlink', linkname: '../../etc' }],
    says: /link "l" -> "\.\.\/\.\.\/etc"/,
  },
  {
    name: 'an absolute link',
    parts: [{ name: 'l', type: 'symlink', linkname: '/etc' }],
    says: /link "l" -> "\/etc"/,
  },
  {
    name: 'a file behind a link',
    parts: [
      { name: 'd/', type: 'directory' },
      { name: 'l', type: 'symlink', linkname: 'd' },
      { name: 'l/x', text: 'x' },
    ],
    says: /behind the link "l"/,
  },
  {
    name: 'a hard link to what is not in the archive',
    parts: [{ name: 'h', type: 'link', linkname: '/etc/passwd' }],
    says: /passwd/,
  },
  { name: 'a device', parts: [{ name: 'd', type: 'character-device' }], says: /"d".*device/ },
  { name: 'a pipe', parts: [{ name: 'p', type: 'fifo' }], says: /"p".*fifo/ },
  {
    name: 'a file in the place of a folder',
    parts: [
      { name: 'a/b', text: 'x' },
      { name: 'a', text: 'x' },
    ],
    says: /"a".*folder and a file/,
  },
  {
    name: 'a file used as a folder',
    parts: [
      { name: 'a', text: 'x' },
      { name: 'a/b', text: 'x' },
    ],
    says: /behind the file "a"/,
  },
]

for (const { name, parts, says } of HOSTILE) {
  it(`${name} is refused, and the entry named`, async () => {
    assert.match((await refusal(stream(await tarOf(parts)))).message, says)
  })
}

it('a later entry replaces an earlier link, and is not written through it', async () => {
  await using outside = await tempFolder()
  await writeFile(outside.join('victim'), 'before')
  const tar = await tarOf([
    { name: 'a', text: 'a' },
    { name: 'l', type: 'symlink', linkname: 'a' },
    { name: 'l', text: 'second' },
  ])
  assert.deepEqual(await unpacked(stream(tar)), ['a 1', 'l 6'])
  assert.equal(await readFile(outside.join('victim'), 'utf8'), 'before')
})

it('zip entries that climb out, links that point out, and devices are refused', async () => {
  assert.match((await refusal(stream(zipSync({ '../evil': strToU8('x') })))).message, /evil/)
  const link = zipSync({ l: [strToU8('/etc/passwd'), { os: 3, attrs: 0o120777 << 16 }] })
  assert.match((await refusal(stream(link))).message, /link "l"/)
  const device = zipSync({ d: [strToU8(''), { os: 3, attrs: 0o020666 << 16 }] })
  assert.match((await refusal(stream(device))).message, /"d" is a device/)
})

it('what is no archive, broken off, or empty is refused in words', async () => {
  assert.match((await refusal(stream(Buffer.alloc(0)))).message, /empty/)
  assert.match((await refusal(stream(Buffer.from('#!/bin/sh\n'.repeat(200))))).message, /tar/)
  const tar = await tarOf([{ name: 'a', text: 'x'.repeat(5000) }])
  assert.match((await refusal(stream(tar.subarray(0, 2000)))).message, /cannot read the tar/)
  const zip = Buffer.from(zipSync({ a: strToU8('x'.repeat(500)) }))
  assert.match((await refusal(stream(zip.subarray(0, 60)))).message, /cannot read the zip/)
  const gz = gzipSync(tar)
  assert.match((await refusal(stream(gz.subarray(0, 40)))).message, /cannot read the tar/)
})

it('more than an upload may hold is refused while it is read', async () => {
  let sent = 0
  const endless = new Readable({
    read() {
      sent += 1
      this.push(Buffer.alloc(1024 * 1024))
    },
  })
  const fault = await refusal({ kind: 'stream', type: 'tar', body: endless })
  assert.match(fault.message, /larger than 64 MiB/)
  assert.ok(sent < LIMITS.sourceBytesMax / 1024 / 1024 + 8, `${sent} MiB`)
})

it('hard links count as the files that they become, before those are written', async () => {
  const tar = pack()
  tar.entry({ name: 'zeros' }, Buffer.alloc(300 * 1024 * 1024))
  tar.entry({ name: 'again', type: 'link', linkname: 'zeros' })
  tar.finalize()
  const gz = gzipSync(await buffer(Readable.from(tar)), { level: 1 })
  await using work = await tempFolder()
  await assert.rejects(acquireSource(stream(gz), work.path, FETCH, never), {
    code: 'BUNDLE_INVALID',
    message: /more than 512 MiB unpacked/,
  })
  assert.deepEqual(await readdir(work.join('source')), ['zeros'])
})

it('a bomb of zeros is refused while it is unpacked', async () => {
  const big = Buffer.alloc(40 * 1024 * 1024)
  const tar = pack()
  for (let n = 0; n < 14; n += 1) tar.entry({ name: `zero-${n}` }, big)
  tar.finalize()
  const gz = gzipSync(await buffer(Readable.from(tar)), { level: 1 })
  assert.ok(gz.length < LIMITS.sourceBytesMax)
  assert.match((await refusal(stream(gz))).message, /more than 512 MiB unpacked/)
})

it('a folder is copied with its links and modes, without what is not needed', async () => {
  await using from = await tempFolder()
  await mkdir(from.join('lib'))
  await writeFile(from.join('index.js'), 'x')
  await writeFile(from.join('lib/tool'), 'x', { mode: 0o755 })
  await symlink('lib/tool', from.join('tool'))
  await mkdir(from.join('.git'))
  const source = { kind: 'folder', path: from.path } as const
  assert.deepEqual(await unpacked(source), [
    'index.js 1',
    'lib/',
    'lib/tool* 1',
    'tool -> lib/tool',
  ])
  await symlink('/etc', from.join('out'))
  assert.match((await refusal(source)).message, /link "out"/)
  assert.match((await refusal({ kind: 'folder', path: from.join('none') })).message, /no folder/)
})

interface Site extends AsyncDisposable {
  readonly url: string
}

async function site(listener: RequestListener): Promise<Site> {
  const server = createServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return {
    url: `http://127.0.0.1:${address.port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

it('a URL is downloaded, through redirects, and its archive recognised', async () => {
  const zip = zipSync({
    'repo-main/README.md': strToU8('r'),
    'repo-main/test/fns/sieve/index.js': strToU8('x'),
  })
  await using web = await site((request, response) => {
    if (request.url === '/moved') response.writeHead(302, { location: '/archive.zip' }).end()
    else response.end(zip)
  })
  const url = `${web.url}/moved`
  assert.deepEqual(await unpacked({ kind: 'url', url }), [
    'README.md 1',
    'test/',
    'test/fns/',
    'test/fns/sieve/',
    'test/fns/sieve/index.js 1',
  ])
  for (const subfolder of ['repo-main/test/fns/sieve', '/test/fns/sieve/']) {
    assert.deepEqual(await unpacked({ kind: 'url', url, subfolder }), ['index.js 1'])
  }
  for (const subfolder of ['', '/']) {
    assert.equal((await unpacked({ kind: 'url', url, subfolder })).length, 5)
  }
  assert.match(
    (await refusal({ kind: 'url', url, subfolder: 'nowhere' })).message,
    /"nowhere" is not in the archive; it holds: repo-main/,
  )
  assert.match((await refusal({ kind: 'url', url, subfolder: '../..' })).message, /outside/)
})

it('a download that goes wrong says what the other side did', async () => {
  await using web = await site((request, response) => {
    if (request.url === '/loop') response.writeHead(302, { location: '/loop' }).end()
    else if (request.url === '/missing?token=secret') response.writeHead(404).end('not here')
    else if (request.url === '/file')
      response.writeHead(302, { location: 'file:///etc/passwd' }).end()
    else if (request.url === '/slow') response.write('x')
    else request.socket.destroy()
  })
  const at = (path: string) => refusal({ kind: 'url', url: web.url + path })
  assert.match((await at('/loop')).message, /redirects more than 2 times/)
  const missing = (await at('/missing?token=secret')).message
  assert.match(missing, /answered 404/)
  assert.doesNotMatch(missing, /secret/)
  assert.match((await at('/file')).message, /not a URL that starts with http/)
  assert.match((await at('/cut')).message, /failed: .*(hang up|reset)/)
  assert.match((await refusal({ kind: 'url', url: 'ftp://x/y' })).message, /http:\/\/ or https/)
  await using work = await tempFolder()
  await assert.rejects(
    acquireSource(
      { kind: 'url', url: `${web.url}/slow` },
      work.path,
      { ...FETCH, timeoutMs: 300 },
      never,
    ),
    { code: 'BUNDLE_INVALID', message: /took longer than 0\.3 s/ },
  )
})

it('files are readable by everybody, whatever the process has as umask', async () => {
  const before = process.umask(0o077)
  try {
    await using work = await tempFolder()
    const source = stream(await tarOf(files))
    const root = await acquireSource(source, work.path, FETCH, never)
    assert.equal((await stat(`${root}/index.js`)).mode & 0o777, 0o644)
    assert.equal((await stat(`${root}/bin/tool`)).mode & 0o777, 0o755)
  } finally {
    process.umask(before)
  }
})
