import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createBuilder, type Built } from '#controller/build/index.ts'
import { Fault } from '#shared/fault.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { eventually } from '#test/eventually.ts'
import { hasEnded } from '#test/process-facts.ts'
import { tempFolder } from '#test/temp.ts'

const never = new AbortController().signal

interface HostScope extends AsyncDisposable {
  readonly log: CapturedLog
  readonly lines: string[]
  readonly folder: string
  /** Writes a script that is found as `name` instead of the host's own tool. */
  tool(name: string, script: string): Promise<void>
  build(files: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<Built>
}

/** A builder without an engine, with tools of the test's own: what they get and do is what is tested. */
async function hostScope(): Promise<HostScope> {
  const temp = await tempFolder()
  const log = new CapturedLog()
  const tools = temp.join('bin')
  await mkdir(tools)
  // Only these: an npm or python3 of this machine shall not be found.
  for (const name of ['mkdir', 'sleep']) await symlink(`/bin/${name}`, path.join(tools, name))
  const builder = createBuilder({
    folder: temp.join('build'),
    images: { arch: 'amd64' },
    searchPath: tools,
    log,
  })
  const lines: string[] = []
  let count = 0
  return {
    log,
    lines,
    folder: temp.join('build'),
    async tool(name, script) {
      await writeFile(path.join(tools, name), `#!/bin/sh\n${script}\n`)
      await chmod(path.join(tools, name), 0o755)
    },
    async build(files, signal = never) {
      count += 1
      const source = temp.join(`source-${count}`)
      await mkdir(source)
      for (const [name, text] of Object.entries(files))
        await writeFile(path.join(source, name), text)
      return builder.build(
        { kind: 'folder', path: source },
        { arch: 'amd64' },
        (line) => lines.push(line),
        signal,
      )
    },
    async [Symbol.asyncDispose]() {
      await builder[Symbol.asyncDispose]()
      assert.deepEqual(await readdir(temp.join('build/tmp')), [])
      await temp[Symbol.asyncDispose]()
    },
  }
}

const PACKAGE = { 'package.json': '{"dependencies":{"a":"1.0.0"}}', 'index.js': 'x' }

it('without an engine the host installs, warned about once, without scripts of packages', async () => {
  await using scope = await hostScope()
  await scope.tool('npm', 'mkdir node_modules && echo "$@" > node_modules/args && echo done')
  const built = await scope.build(PACKAGE)
  assert.equal(built.arch, 'amd64')
  assert.ok(scope.lines.some((line) => line.startsWith('warning: no container engine')))
  assert.ok(scope.lines.includes('done'))
  await scope.build({ ...PACKAGE, 'other.js': 'x' })
  assert.equal(scope.log.lines.filter(({ level }) => level === 'warn').length, 1)
})

it('a tool that is not there is named, with how to get it', async () => {
  await using scope = await hostScope()
  await assert.rejects(scope.build(PACKAGE), {
    code: 'BUILD_FAILED',
    message: /npm is not installed.*apt-get install npm/,
  })
  await scope.tool('python3', 'echo "No module named pip" >&2; exit 1')
  await assert.rejects(scope.build({ 'fn.py': 'x', 'requirements.txt': 'six' }), {
    code: 'BUILD_FAILED',
    message: /pip is not installed.*python3-pip/,
  })
})

it('a failing tool shows its last lines', async () => {
  await using scope = await hostScope()
  await scope.tool('npm', 'echo out; echo broken >&2; exit 7')
  await assert.rejects(scope.build(PACKAGE), (error: unknown) => {
    assert.ok(Fault.is(error, 'BUILD_FAILED'), String(error))
    assert.deepEqual(error.details['lines']?.toString().split(',').slice(-2).toSorted(), [
      'broken',
      'out',
    ])
    return true
  })
})

it(
  'a build that is called off ends the tool and what the tool started',
  { timeout: 60_000 },
  async () => {
    await using scope = await hostScope()
    await scope.tool('npm', 'sleep 600 & echo $! > "$HOME/../pid"; echo started; wait')
    const off = new AbortController()
    const outcome = assert.rejects(scope.build(PACKAGE, off.signal), { code: 'CALLER_GONE' })
    await eventually(() => scope.lines.includes('started'))
    const [work = ''] = await readdir(path.join(scope.folder, 'tmp'))
    const pid = Number(await readFile(path.join(scope.folder, 'tmp', work, 'pid'), 'utf8'))
    assert.ok(pid > 1)
    off.abort()
    await outcome
    await sleep(10)
    await eventually(() => hasEnded(pid))
  },
)
