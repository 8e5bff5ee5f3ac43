import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import path from 'node:path'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createBuilder, type Built } from '#controller/build/index.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { tempFolder } from '#test/temp.ts'

const NPM = fileURLToPath(new URL('../../node_modules/npm/bin/npm-cli.js', import.meta.url))
const never = new AbortController().signal

interface HostileScope extends AsyncDisposable {
  /** `%EVIL%` in the files is a shell command that leaves a trace. */
  build(files: Readonly<Record<string, string>>): Promise<Built>
  /** Whether code of the upload has run. */
  ran(): boolean
}

/** A builder without an engine, with the npm and Python of this machine, and a registry that has one package, with a git dependency. */
async function hostileScope(): Promise<HostileScope> {
  const temp = await tempFolder()
  const trace = temp.join('trace')
  const evil = `touch ${trace}`
  const tools = temp.join('bin')
  const python = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'])
    .toString()
    .trim()
  const scripts = {
    npm: `exec ${process.execPath} ${NPM} "$@"`,
    python3: `exec ${python} "$@"`,
    git: evil,
  }
  await mkdir(tools)
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(path.join(tools, name), `#!/bin/sh\n${script}\n`)
    await chmod(path.join(tools, name), 0o755)
  }
  const registry = createServer((request, response) => {
    const version = {
      name: 'deep',
      version: '1.0.0',
      dependencies: { a: 'git+ssh://git@localhost/a.git' },
    }
    if (request.url !== '/deep') response.writeHead(404)
    response.end(
      JSON.stringify({
        name: 'deep',
        'dist-tags': { latest: '1.0.0' },
        versions: { '1.0.0': version },
      }),
    )
  })
  registry.listen(0, '127.0.0.1')
  await once(registry, 'listening')
  const address = registry.address()
  assert.ok(typeof address === 'object' && address !== null)
  const url = `http://127.0.0.1:${address.port}/`
  const builder = createBuilder({
    folder: temp.join('build'),
    images: { arch: 'amd64' },
    searchPath: `${tools}:/usr/bin:/bin`,
    env: {
      npm_config_registry: url,
      npm_config_fetch_retries: '0',
      PIP_INDEX_URL: url,
      PIP_RETRIES: '0',
    },
    log: new CapturedLog(),
  })
  const source = temp.join('source')
  return {
    async build(files) {
      for (const [name, text] of Object.entries(files)) {
        const file = path.join(source, name)
        await mkdir(path.dirname(file), { recursive: true })
        await writeFile(file, text.replaceAll('%EVIL%', evil), { mode: 0o755 })
      }
      return builder.build(
        { kind: 'folder', path: source },
        { arch: 'amd64' },
        () => undefined,
        never,
      )
    },
    ran: () => existsSync(trace),
    async [Symbol.asyncDispose]() {
      await builder[Symbol.asyncDispose]()
      registry.close()
      registry.closeAllConnections()
      await temp[Symbol.asyncDispose]()
    },
  }
}

const SYSTEM = `__import__('os').system('%EVIL%')\n`
const BACKEND = {
  'pkg/pyproject.toml':
    '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n[project]\nname = "pkg"\nversion = "1"\n',
  'pkg/evil.py': SYSTEM,
}

const UPLOADS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'git of the upload, by .npmrc, for a dependency in git': {
    'index.js': 'x',
    'package.json': '{"dependencies":{"a":"git+ssh://git@localhost/a.git"}}',
    '.npmrc': 'git=./evil.sh\n',
    'evil.sh': '#!/bin/sh\n%EVIL%\n',
  },
  'git of the upload, by .npmrc, for a dependency of a dependency': {
    'index.js': 'x',
    'package.json': '{"dependencies":{"deep":"1.0.0"}}',
    '.npmrc': 'git=./evil.sh\n',
    'evil.sh': '#!/bin/sh\n%EVIL%\n',
  },
  'git of the host for a dependency of a dependency': {
    'index.js': 'x',
    'package.json': '{"dependencies":{"deep":"1.0.0"}}',
  },
  'a package in the upload with a build backend of its own': {
    'fn.py': 'x',
    'requirements.txt': './pkg\n',
    ...BACKEND,
  },
  'a package in the upload behind an encoding': {
    'fn.py': 'x',
    'requirements.txt': '# coding: utf-7\nsix==1+AAo-.+AC8-pkg\n',
    ...BACKEND,
  },
  'a module with the name of the installer': {
    'fn.py': 'x',
    'requirements.txt': 'missing==1\n',
    'pip.py': SYSTEM,
    'pip/__main__.py': SYSTEM,
  },
}

for (const [name, files] of Object.entries(UPLOADS)) {
  it(`without an engine no code of the upload runs: ${name}`, { timeout: 60_000 }, async () => {
    await using scope = await hostileScope()
    await assert.rejects(scope.build(files), { code: 'BUILD_FAILED' })
    assert.equal(scope.ran(), false)
  })
}
