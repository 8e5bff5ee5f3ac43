import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { it } from 'node:test'

const ROOT = resolve(import.meta.dirname, '../..')

/** Who may import whom; the first row that matches the importing file decides. */
const LAYERS: readonly { readonly from: string; readonly may: readonly string[] }[] = [
  { from: 'shared/', may: ['shared/'] },
  { from: 'proto/', may: ['proto/'] },
  // Its version is the package's.
  { from: 'agent/agent.ts', may: ['agent/', 'shared/', 'package.json'] },
  { from: 'agent/', may: ['agent/', 'shared/', 'proto/'] },
  // Talks HTTP, like any client.
  {
    from: 'controller/cli/program.ts',
    may: ['controller/cli/', 'shared/', 'package.json'],
  },
  {
    from: 'controller/cli/',
    may: ['controller/cli/', 'shared/', 'controller/api-client/', 'controller/build/'],
  },
  { from: 'controller/', may: ['controller/', 'shared/', 'proto/'] },
  { from: 'runtimes/', may: ['runtimes/', 'shared/'] },
  // README's tables are made from both parts' schemas.
  { from: 'deploy/docs.ts', may: ['agent/config/', 'controller/config/', 'shared/'] },
  // Mistakes in any part's settings are told before set-up.
  {
    from: 'deploy/settings.ts',
    may: ['agent/config/', 'controller/config/', 'shared/', 'deploy/config.ts'],
  },
  // Sets up and starts the parts: it meets them where it must agree with them, and else as processes.
  {
    from: 'deploy/',
    may: ['deploy/', 'shared/', 'runtimes/', 'controller/signing/', 'controller/api-client/'],
  },
]

/** Packages that only some folders may know. */
const PACKAGES: readonly { readonly name: string; readonly only: readonly string[] }[] = [
  {
    name: 'dockerode',
    only: ['agent/handlers/docker/', 'controller/build/', 'controller/main.ts', 'deploy/'],
  },
  { name: 'fastify', only: ['controller/'] },
  { name: 'undici/lib/llhttp/llhttp-wasm.js', only: ['agent/proxy/http/'] },
  { name: 'node:dgram', only: ['agent/proxy/coap/', 'deploy/'] },
  { name: '@bufbuild/protobuf', only: ['agent/proxy/grpc/', 'proto/'] },
  { name: 'node:sqlite', only: ['controller/store/', 'agent/async/', 'deploy/up/'] },
]

/** Composition roots and configuration: the rest gets what it needs as arguments. */
const ENVIRONMENT_READERS = [
  /^(agent|controller)\/main\.ts$/,
  /^(agent|controller)\/config\//,
  /^controller\/cli\//,
  /^deploy\//,
  /^runtimes\//, // Inside the handler: the environment is the function's.
]

const files = globSync('{shared,agent,controller,runtimes,deploy,proto}/**/*.ts', { cwd: ROOT })
const source = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]))

it('imports stay inside their layer, and folders are entered by their index', () => {
  // Seeing nothing is not passing.
  for (const { from } of LAYERS)
    assert.ok(
      files.some((file) => file.startsWith(from)),
      from,
    )
  const seen = files.flatMap((file) => localImports(file))
  assert.ok(seen.length > 100, `${seen.length} imports seen`)
  const problems = files.flatMap((file) => localImports(file).flatMap((to) => check(file, to)))
  assert.deepEqual(problems, [])
})

it('packages that reach outside are known only to the folders that own the reach', () => {
  for (const { name, only } of PACKAGES) {
    const users = files.filter((file) => imports(file).includes(name))
    assert.ok(name === 'node:sqlite' || users.length > 0, `${name} is imported somewhere`)
    assert.deepEqual(
      users.filter((file) => !only.some((folder) => file.startsWith(folder))),
      [],
      name,
    )
  }
})

it('only composition roots and configuration read the environment', () => {
  const readers = files.filter((file) => source.get(file)?.includes('process.env'))
  assert.ok(readers.includes('deploy/main.ts'))
  assert.deepEqual(
    readers.filter((file) => !ENVIRONMENT_READERS.some((allowed) => allowed.test(file))),
    [],
  )
})

function check(file: string, target: string): string[] {
  const layer = LAYERS.find(({ from }) => file.startsWith(from))
  if (!layer?.may.some((prefix) => target.startsWith(prefix))) {
    return [`${file}: may not import ${target}`]
  }
  if (isOwnFolder(file, target) || isFlat(target)) return []
  if (target.endsWith('/index.ts')) return []
  return [`${file}: import ${dirname(target)}/index.ts, not ${target}`]
}

/** Inside one module, files import each other; a module's parts in subfolders see their module's files, too. */
function isOwnFolder(file: string, target: string): boolean {
  return dirname(file).startsWith(dirname(target)) || moduleOf(file) === moduleOf(target)
}

/** `agent/invoke`, `deploy/up`; `agent/proxy/http` counts as `agent/proxy`. */
function moduleOf(file: string): string {
  return file.split('/').slice(0, 2).join('/')
}

/** Folders without an index: each file is a subject of its own. */
function isFlat(target: string): boolean {
  return /^(shared|proto|runtimes)\//.test(target) || target === 'package.json'
}

function imports(file: string): string[] {
  const text = source.get(file) ?? ''
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(([, to = '']) => to)
}

function localImports(file: string): string[] {
  return imports(file).flatMap((to) => {
    if (to.startsWith('#')) return [to.slice(1)]
    return to.startsWith('.') ? [relative(ROOT, resolve(ROOT, dirname(file), to))] : []
  })
}
