import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { it } from 'node:test'
import { Readable } from 'node:stream'
import { zstdDecompressSync } from 'node:zlib'
import Docker from 'dockerode'
import { createBuilder, type Builder, type BuilderOptions } from '#controller/build/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Arch, Runtime } from '#shared/schemas/names.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { dockerScope } from '#test/docker.ts'
import { eventually } from '#test/eventually.ts'
import { testImages } from '#test/images.ts'
import { tempFolder } from '#test/temp.ts'
import { TreeWriter } from '../../controller/build/tree-writer.ts'
import { unpackTar } from '../../controller/build/unpack.ts'

/** What this machine's other programs were told to trust; a builder container knows nothing of it. */
const CA = ['SHOAL_CA_BUNDLE', 'NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE']
  .map((name) => process.env[name])
  .find((file) => file !== undefined && existsSync(file))
const TIMEOUT_MS = 180_000

type Files = Readonly<Record<string, string>>

interface BuildScope extends AsyncDisposable {
  readonly builder: Builder
  readonly folder: string
  readonly installation: string
  readonly log: CapturedLog
  /** Writes the files into a new folder and builds it. */
  build(
    files: Files,
    options?: { runtime?: Runtime; arch?: Arch },
    signal?: AbortSignal,
  ): Promise<{ built: Awaited<ReturnType<Builder['build']>>; lines: string[]; out: string }>
  lines: string[]
  containers(): Promise<number>
}

async function buildScope(options: Partial<BuilderOptions> = {}): Promise<BuildScope> {
  const stack = new AsyncDisposableStack()
  const scope = stack.use(dockerScope())
  const temp = stack.use(await tempFolder())
  const installation = `build-test-${randomUUID()}`
  scope.alsoRemove(`shoal=${installation}`)
  const log = new CapturedLog()
  const images = testImages()
  const folder = temp.join('build')
  const { docker } = scope
  const builder = stack.use(
    createBuilder({ folder, images, docker, ca: CA, installation, log, ...options }),
  )
  const never = new AbortController().signal
  let count = 0
  const result: BuildScope = {
    builder,
    folder,
    installation,
    log,
    lines: [],
    async build(files, { runtime, arch = images.arch } = {}, signal = never) {
      count += 1
      const source = temp.join(`source-${count}`)
      for (const [name, text] of Object.entries(files)) {
        await mkdir(path.join(source, path.dirname(name)), { recursive: true })
        await writeFile(path.join(source, name), text)
      }
      result.lines = []
      const built = await builder.build(
        { kind: 'folder', path: source },
        { runtime, arch },
        (line) => result.lines.push(line),
        signal,
      )
      const out = temp.join(`out-${count}`)
      await mkdir(out)
      const tar = Readable.from([zstdDecompressSync(await readFile(built.file))])
      await unpackTar(tar, [], new TreeWriter(out), {}, never)
      return { built, lines: result.lines, out }
    },
    async containers() {
      const filters = { label: [`shoal=${installation}`] }
      return (await docker.listContainers({ all: true, filters })).length
    },
    async [Symbol.asyncDispose]() {
      // Whatever a test did: no container and no temp folder is left.
      const left = await result.containers()
      const temps = await readdir(path.join(folder, 'tmp')).catch(() => [])
      await stack.disposeAsync()
      assert.equal(left, 0, 'builder containers are left')
      assert.deepEqual(temps, [], 'temp folders are left')
    },
  }
  return result
}

const PACKAGE = JSON.stringify({ name: 'fn', main: 'index.js', dependencies: { ms: '2.1.3' } })
const LOCK = JSON.stringify({
  name: 'fn',
  lockfileVersion: 3,
  requires: true,
  packages: {
    '': { name: 'fn', dependencies: { ms: '2.1.3' } },
    'node_modules/ms': {
      version: '2.1.3',
      integrity:
        'sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==',
    },
  },
})

it(
  'an npm package is built with its lock file, and a second time not at all',
  { timeout: TIMEOUT_MS },
  async () => {
    await using scope = await buildScope()
    const files = { 'package.json': PACKAGE, 'package-lock.json': LOCK, 'index.js': 'x' }
    const { built, lines, out } = await scope.build(files)
    assert.equal(built.cached, false)
    assert.equal(built.runtime, 'nodejs')
    assert.equal(built.entry, 'index.js')
    assert.equal(built.arch, testImages().arch)
    assert.ok(
      lines.some((line) => line.includes('npm ci (package-lock.json)')),
      lines.join('\n'),
    )
    const manifest = await readFile(path.join(out, 'node_modules/ms/package.json'), 'utf8')
    assert.match(manifest, /"version": "2\.1\.3"/)

    const again = await scope.build(files)
    assert.deepEqual(again.lines, ['unchanged: using the bundle built earlier'])
    assert.deepEqual({ ...again.built, tookMs: 0, cached: false }, { ...built, tookMs: 0 })

    await writeFile(built.file, 'damaged')
    const mended = await scope.build(files)
    assert.equal(mended.built.cached, false)
    assert.equal(mended.built.digest, built.digest)
  },
)

it(
  'without a lock file npm chooses; uploaded node_modules are made anew, development packages left out',
  { timeout: TIMEOUT_MS },
  async () => {
    await using scope = await buildScope()
    const manifest = { dependencies: { ms: '2.1.3' }, devDependencies: { inherits: '2.0.4' } }
    const { lines, out } = await scope.build({
      'package.json': JSON.stringify(manifest),
      'index.js': 'x',
      'node_modules/ms/index.js': 'forged',
      'node_modules/other/index.js': 'x',
    })
    assert.ok(lines.some((line) => line.startsWith('node_modules of the upload is left out')))
    assert.ok(lines.some((line) => line.includes('npm install (no package-lock.json')))
    const modules = await readdir(path.join(out, 'node_modules'))
    assert.deepEqual(
      modules.filter((name) => !name.startsWith('.')),
      ['ms'],
    )
    assert.doesNotMatch(
      await readFile(path.join(out, 'node_modules/ms/index.js'), 'utf8'),
      /forged/,
    )
  },
)

it(
  "a package's own scripts run, but not as root, without capabilities, and away from the host",
  { timeout: TIMEOUT_MS },
  async () => {
    await using scope = await buildScope()
    const postinstall = 'id -u > who; grep CapEff /proc/self/status >> who; echo made by a script'
    const manifest = { scripts: { postinstall }, dependencies: { ms: '2.1.3' } }
    const { out, lines } = await scope.build({
      'package.json': JSON.stringify(manifest),
      'index.js': 'x',
    })
    assert.ok(lines.includes('made by a script'), lines.join('\n'))
    const [user, capabilities] = (await readFile(path.join(out, 'who'), 'utf8')).trim().split('\n')
    assert.notEqual(user, '0')
    assert.match(capabilities ?? '', /^CapEff:\s+0000000000000000$/)
  },
)

it(
  'Python requirements are installed beside the function, with byte code',
  { timeout: TIMEOUT_MS },
  async () => {
    await using scope = await buildScope()
    const { built, out } = await scope.build({
      'fn.py': 'import six\n',
      'requirements.txt': 'six==1.16.0\n',
    })
    assert.equal(built.runtime, 'python3')
    assert.match(await readFile(path.join(out, '.deps/six.py'), 'utf8'), /__version__ = "1\.16\.0"/)
    assert.ok(
      (await readdir(path.join(out, '.deps/__pycache__'))).some((name) => name.endsWith('.pyc')),
    )
  },
)

it(
  'a build that fails shows its last lines, changes nothing and leaves nothing',
  { timeout: TIMEOUT_MS },
  async () => {
    await using scope = await buildScope()
    const manifest = { dependencies: { ms: '99.99.99' } }
    const failure = await scope
      .build({ 'package.json': JSON.stringify(manifest), 'index.js': 'x' })
      .then(
        () => assert.fail('built'),
        (error: unknown) => error,
      )
    assert.ok(Fault.is(failure, 'BUILD_FAILED'), String(failure))
    assert.match(failure.message, /npm ended with exit code 1/)
    const lines = failure.details['lines']
    assert.ok(Array.isArray(lines))
    assert.match(lines.join('\n'), /No matching version found for ms@99\.99\.99/)
    assert.deepEqual(lines, scope.lines)
    assert.deepEqual(await readdir(path.join(scope.folder, 'bundles')).catch(() => []), [])
  },
)

it('a build that is called off ends its container at once', { timeout: TIMEOUT_MS }, async () => {
  await using scope = await buildScope()
  const manifest = { scripts: { postinstall: 'sleep 600' }, dependencies: { ms: '2.1.3' } }
  const off = new AbortController()
  const building = scope.build(
    { 'package.json': JSON.stringify(manifest), 'index.js': 'x' },
    {},
    off.signal,
  )
  const outcome = assert.rejects(building, { code: 'CALLER_GONE' })
  await eventually(() => scope.lines.some((line) => line.includes('postinstall')), {
    timeoutMs: 60_000,
  })
  assert.equal(await scope.containers(), 1)
  off.abort()
  await outcome
  assert.equal(await scope.containers(), 0)
})

it(
  'a build that takes too long, or too much memory, fails and says so',
  { timeout: TIMEOUT_MS },
  async () => {
    await using slow = await buildScope({ limits: { installTimeoutMs: 4_000 } })
    const sleeping = { scripts: { postinstall: 'sleep 600' }, dependencies: { ms: '2.1.3' } }
    await assert.rejects(
      slow.build({ 'package.json': JSON.stringify(sleeping), 'index.js': 'x' }),
      { code: 'BUILD_FAILED', message: /took longer than 4 s/ },
    )
    await using small = await buildScope({ limits: { memoryMiB: 128 } })
    const greedy = {
      scripts: { postinstall: 'node -e "const a=[];for(;;)a.push(Buffer.alloc(1e7,1))"' },
      dependencies: { ms: '2.1.3' },
    }
    await assert.rejects(small.build({ 'package.json': JSON.stringify(greedy), 'index.js': 'x' }), {
      code: 'BUILD_FAILED',
      message: /more than 128 MiB|exit code/,
    })
  },
)

it(
  'what an installation leaves that points out of it is not taken',
  { timeout: TIMEOUT_MS },
  async () => {
    await using scope = await buildScope()
    const manifest = {
      scripts: { postinstall: 'ln -s /etc/passwd stolen' },
      dependencies: { ms: '2.1.3' },
    }
    await assert.rejects(
      scope.build({ 'package.json': JSON.stringify(manifest), 'index.js': 'x' }),
      { code: 'BUILD_FAILED', message: /"stolen" -> "\/etc\/passwd"/ },
    )
  },
)

it('nothing to install needs no container, and fits every architecture', async () => {
  const offline = new Docker({ socketPath: '/nowhere/docker.sock' })
  await using scope = await buildScope({ docker: offline })
  await assert.rejects(scope.build({ 'fn.py': 'x' }), { code: 'ENGINE_UNAVAILABLE' })
  await using other = await buildScope()
  const { built } = await other.build({ 'fn.sh': '#!/bin/sh\ncat\n' }, { arch: 'arm64' })
  assert.equal(built.arch, 'any')
  const { built: same } = await other.build({ 'fn.sh': '#!/bin/sh\ncat\n' }, { arch: 'amd64' })
  assert.equal(same.cached, true)
  assert.equal(same.digest, built.digest)
})

it(
  'what a killed controller left is removed by the next builder, and nothing else',
  { timeout: TIMEOUT_MS },
  async () => {
    await using own = dockerScope()
    await using scope = await buildScope()
    const Image = await own.emptyImage()
    const make = async (installation: string) =>
      (
        await own.docker.createContainer({
          Image,
          Cmd: ['/x'],
          Labels: { ...own.labels, shoal: installation, 'shoal.build': 'b-1' },
        })
      ).id
    const [mine, foreign] = [await make(scope.installation), await make('another-installation')]
    await mkdir(path.join(scope.folder, 'tmp/b-old'), { recursive: true })
    await scope.build({ 'fn.sh': 'x' })
    await assert.rejects(own.docker.getContainer(mine).inspect(), { statusCode: 404 })
    assert.equal((await own.docker.getContainer(foreign).inspect()).Id, foreign)
  },
)

it('a builder image that is gone is named', async () => {
  const images = testImages()
  const gone = { run: 'sha256:none', build: `sha256:${'0'.repeat(64)}` }
  const docker = { nodejs: gone, python3: gone, binary: gone }
  await using scope = await buildScope({ images: { ...images, docker } })
  await assert.rejects(scope.build({ 'package.json': PACKAGE, 'index.js': 'x' }), {
    code: 'IMAGE_MISSING',
    message: /sha256:0000.*npm start/,
  })
})
