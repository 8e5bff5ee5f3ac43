import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { buildRelease } from '#deploy/bundle/index.ts'
import { startsWell } from '#test/bundled-agent.ts'
import { NodeUnderTest } from '#test/node-under-test.ts'
import { freePort } from '#test/ports.ts'
import { childScope } from '#test/process.ts'
import { tempFolder, type TempFolder } from '#test/temp.ts'

const run = promisify(execFile)

/** Outside of the checkout: no `node_modules` is found from there. */
let release: TempFolder

before(async () => {
  release = await tempFolder()
  await buildRelease({ folder: release.path })
})
after(() => release[Symbol.asyncDispose]())

describe('the release', () => {
  it('is one file per program, the launcher of the agent, and the licences of what is inside', async () => {
    const files = await readdir(release.path)
    assert.deepEqual(files.toSorted(), [
      'THIRD-PARTY-NOTICES.txt',
      'agent-worker.mjs',
      'agent.mjs',
      'controller.mjs',
      'shoal-agent',
      'shoal.mjs',
    ])
    const notices = await readFile(release.join('THIRD-PARTY-NOTICES.txt'), 'utf8')
    const titles = [...notices.matchAll(/^-{78}\n\n(\S+) \S+ \((.+)\)$/gm)]
    assert.ok(titles.length > 40, `${titles.length} packages`)
    for (const name of ['pino', 'typebox', 'dockerode', '@nats-io/nats-core']) {
      assert.ok(
        titles.some(([, title]) => title === name),
        name,
      )
    }
    for (const name of ['ssh2', 'tar-fs']) {
      assert.ok(!titles.some(([, title]) => title === name), `${name} is left out`)
    }
    const allowed = /^(MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|Unlicense|\(.* (OR|AND) .*\))$/
    assert.deepEqual(
      titles.filter(([, , licence = '']) => !allowed.test(licence)).map(([title]) => title),
      [],
    )
  })

  it('takes of Node what it uses, and keeps its source in one byte a letter', async () => {
    for (const file of ['agent.mjs', 'agent-worker.mjs', 'controller.mjs', 'shoal.mjs']) {
      const source = await readFile(release.join(file), 'utf8')
      const imports = [...source.matchAll(/\bimport\s*[^('"`;]{1,200}?\bfrom\s*['"]([^'"]+)['"]/g)]
      assert.deepEqual(
        imports.map(([, from]) => from),
        ['node:module'],
        file,
      )
      assert.equal(Buffer.byteLength(source), source.length, file)
    }
  })

  it('has programs that say how they are used, and errors under their own names', async () => {
    const { stdout: help } = await run(release.join('shoal-agent'), ['--help'], pinned())
    assert.match(help, /SHOAL_AGENT_DATA/)
    const cli = await run(process.execPath, [release.join('shoal.mjs'), '--version'])
    const { version }: { version: string } = JSON.parse(await readFile('package.json', 'utf8'))
    assert.equal(cli.stdout.trim(), version)
    await using folder = await tempFolder()
    const failed = await run(release.join('shoal-agent'), {
      ...pinned({ SHOAL_DATA: folder.path, SHOAL_JOIN_TOKEN: 'x' }),
    }).catch((error: { stdout: string; stderr: string }) => error)
    const fatal: { code: string } = JSON.parse(failed.stdout.trim())
    assert.equal(fatal.code, 'CONFIG_INVALID')
    assert.match(failed.stderr, /^shoal-agent: .*token/m)
  })

  it('has an agent that runs on jemalloc where that can be loaded, unless told otherwise', async () => {
    await using folder = await tempFolder()
    const NODE = folder.join('node')
    await writeFile(NODE, '#!/bin/sh\nenv', { mode: 0o755 })
    const started = async (env: Readonly<Record<string, string>> = {}) => {
      const { stdout, stderr } = await run(release.join('shoal-agent'), pinned({ NODE, ...env }))
      assert.equal(stderr, '')
      return stdout
    }
    const { stderr: cannot } = await run('/bin/sh', ['-c', ':'], {
      env: { LD_PRELOAD: 'libjemalloc.so.2' },
    })
    if (cannot === '') {
      assert.match(await started(), /^LD_PRELOAD=libjemalloc\.so\.2$/m)
      assert.match(await started(), /^MALLOC_CONF=.*dirty_decay_ms:1000/m)
      assert.match(await started({ MALLOC_CONF: 'narenas:2' }), /^MALLOC_CONF=narenas:2$/m)
    }
    await writeFile(folder.join('libjemalloc.so.2'), 'not a library')
    for (const without of [{ LD_PRELOAD: '' }, { LD_LIBRARY_PATH: folder.path }]) {
      const env = await started(without)
      assert.doesNotMatch(env, /^(LD_PRELOAD=.|MALLOC_CONF)/m)
      assert.match(env, /^MALLOC_ARENA_MAX=1$/m)
    }
    assert.match(await started({ MALLOC_ARENA_MAX: '2' }), /^MALLOC_ARENA_MAX=2$/m)
  })

  it('has an agent that keeps what Node compiles in its own folder, and makes none for that', async () => {
    await using folder = await tempFolder()
    const NODE = folder.join('node')
    await writeFile(NODE, '#!/bin/sh\nenv', { mode: 0o755 })
    const started = async (env: Readonly<Record<string, string>>) =>
      (await run(release.join('shoal-agent'), pinned({ NODE, ...env }))).stdout
    const SHOAL_DATA = folder.join('data')
    assert.doesNotMatch(await started({ SHOAL_DATA }), /^NODE_COMPILE_CACHE=/m)
    await mkdir(folder.join('data/agent'), { recursive: true })
    const cache = `NODE_COMPILE_CACHE=${folder.join('data/agent/compiled')}`
    assert.ok((await started({ SHOAL_DATA })).split('\n').includes(cache))
    const other = await started({ SHOAL_DATA: '/nowhere', SHOAL_AGENT_DATA: folder.path })
    assert.ok(other.split('\n').includes(`NODE_COMPILE_CACHE=${folder.join('compiled')}`))
    assert.match(await started({ SHOAL_DATA, NODE_COMPILE_CACHE: '' }), /^NODE_COMPILE_CACHE=$/m)
  })
})

it('the bundled controller serves, with its API described, and the bundled command line finds it', async () => {
  await using folder = await tempFolder()
  const port = String(await freePort())
  const env = {
    SHOAL_DATA: folder.path,
    SHOAL_API_PORT: port,
    SHOAL_NATS_URL: 'nats://127.0.0.1:9',
  }
  const options = { script: release.join('controller.mjs'), env, cwd: folder.path }
  await using controller = await childScope(options)
  const url = `http://127.0.0.1:${port}`
  const token = await readFile(folder.join('controller', 'api-token'), 'utf8')
  const headers = { authorization: `Bearer ${token.trim()}` }
  const described = await fetch(`${url}/openapi.json`, { headers })
  assert.equal(described.status, 200, controller.output())
  assert.match(await described.text(), /"\/v1\/functions"/)
  const args = [release.join('shoal.mjs'), '--url', url, 'fn', 'ls', '--json']
  const { stdout } = await run(process.execPath, args, { env: { ...process.env, ...env } })
  assert.deepEqual(JSON.parse(stdout), { functions: [] })
})

it('the bundled agent adopts what runs, answers over every protocol, starts in time and in little memory', async () => {
  const launcher = [release.join('shoal-agent')]
  await using node = await NodeUnderTest.create({ engine: 'process', functions: 4 }, launcher)
  await startsWell(node, launcher)
  // Starting calls each function by HTTP.
  assert.notDeepEqual(await readdir(join(node.agentFolder, 'compiled')), [])
  await using withWorkers = await node.start(['env', 'SHOAL_WORKERS=2', ...launcher])
  const metrics = await fetch(`http://127.0.0.1:${withWorkers.ports.admin}/metrics`)
  assert.match(await metrics.text(), /^shoal_process_workers_count 2$/m)
  await withWorkers.kill('SIGTERM')
})

/** The launcher takes the first Node on PATH; tests have one of their own. */
function pinned(env: Readonly<Record<string, string>> = {}) {
  return { env: { PATH: process.env['PATH'] ?? '', NODE: process.execPath, ...env } }
}
