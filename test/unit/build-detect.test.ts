import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Fault, type FaultCode } from '#shared/fault.ts'
import type { Runtime } from '#shared/schemas/names.ts'
import { detectRuntime } from '../../controller/build/detect.ts'
import { hasRequirements, parseManifest } from '../../controller/build/manifest.ts'
import type { TreeEntry } from '../../controller/build/tree.ts'

/** `fn.sh*` is executable, `lib/` a folder. */
function tree(...names: string[]): TreeEntry[] {
  return names.map((name) => {
    if (name.endsWith('/')) return { kind: 'folder', path: name.slice(0, -1) }
    const executable = name.endsWith('*')
    return { kind: 'file', path: name.replace(/\*$/, ''), executable, bytes: 1 }
  })
}

interface Row {
  readonly name: string
  readonly files: string[]
  readonly manifest?: string
  readonly wanted?: Runtime
  readonly runtime?: Runtime
  readonly entry?: string
  readonly fault?: FaultCode
  readonly says?: RegExp
}

const ROWS: Row[] = [
  { name: 'fn.py is Python', files: ['fn.py'], runtime: 'python3', entry: 'fn.py' },
  { name: 'main.py is Python', files: ['main.py', 'a.py'], runtime: 'python3', entry: 'main.py' },
  {
    name: 'fn.py comes before main.py',
    files: ['fn.py', 'main.py'],
    runtime: 'python3',
    entry: 'fn.py',
  },
  {
    name: 'requirements.txt alone is Python without anything to load',
    files: ['app.py', 'requirements.txt'],
    fault: 'BUNDLE_INVALID',
    says: /python3 needs fn\.py or main\.py; found: app\.py, requirements\.txt/,
  },
  { name: 'index.js is Node', files: ['index.js'], runtime: 'nodejs', entry: 'index.js' },
  { name: 'index.ts is Node', files: ['index.ts'], runtime: 'nodejs', entry: 'index.ts' },
  { name: 'fn.mjs is Node', files: ['fn.mjs'], runtime: 'nodejs', entry: 'fn.mjs' },
  {
    name: 'main of package.json is the entry',
    files: ['package.json', 'index.js', 'lib/', 'lib/handler.js'],
    manifest: '{"name":"fn","main":"./lib/handler.js"}',
    runtime: 'nodejs',
    entry: 'lib/handler.js',
  },
  {
    name: 'main may leave out its ending, as require() allows',
    files: ['package.json', 'handler.cjs'],
    manifest: '{"main":"handler"}',
    runtime: 'nodejs',
    entry: 'handler.cjs',
  },
  {
    name: 'main may be a folder with an index',
    files: ['package.json', 'src/', 'src/index.mjs'],
    manifest: '{"main":"src/"}',
    runtime: 'nodejs',
    entry: 'src/index.mjs',
  },
  {
    name: 'main that is not in the upload is named',
    files: ['package.json', 'src/', 'src/a.ts'],
    manifest: '{"main":"dist/index.js"}',
    fault: 'BUNDLE_INVALID',
    says: /"dist\/index\.js", which is not in the upload.*found: package\.json, src\//,
  },
  {
    name: 'package.json without anything to load',
    files: ['package.json'],
    manifest: '{}',
    fault: 'BUNDLE_INVALID',
    says: /nodejs needs index\.js/,
  },
  {
    name: 'fn.sh is binary, whatever its mode',
    files: ['fn.sh'],
    runtime: 'binary',
    entry: 'fn.sh',
  },
  {
    name: 'one executable is binary',
    files: ['thermo*', 'a.txt'],
    runtime: 'binary',
    entry: 'thermo',
  },
  {
    name: 'two executables say nothing',
    files: ['a*', 'b*'],
    fault: 'RUNTIME_UNKNOWN',
    says: /no runtime fits these files: a, b; expected .*--runtime/,
  },
  {
    name: 'an executable below the top is no function',
    files: ['bin/', 'bin/tool*'],
    fault: 'RUNTIME_UNKNOWN',
    says: /found|fits these files: bin\//,
  },
  {
    name: 'an executable Python file is Python',
    files: ['fn.py*'],
    runtime: 'python3',
    entry: 'fn.py',
  },
  {
    name: 'two runtimes are not guessed between',
    files: ['fn.py', 'package.json', 'index.js'],
    manifest: '{}',
    fault: 'RUNTIME_UNKNOWN',
    says: /more than one runtime: package\.json, index\.js \(nodejs\) and fn\.py \(python3\).*--runtime/,
  },
  {
    name: 'the wanted runtime wins',
    files: ['fn.py', 'package.json', 'index.js'],
    manifest: '{}',
    wanted: 'python3',
    runtime: 'python3',
    entry: 'fn.py',
  },
  {
    name: 'the wanted runtime finds main.js, which says nothing by itself',
    files: ['main.js'],
    wanted: 'nodejs',
    runtime: 'nodejs',
    entry: 'main.js',
  },
  {
    name: 'the wanted runtime must find something to load',
    files: ['fn.py'],
    wanted: 'nodejs',
    fault: 'BUNDLE_INVALID',
    says: /nodejs needs .*; found: fn\.py/,
  },
  {
    name: 'an empty upload says so',
    files: [],
    fault: 'RUNTIME_UNKNOWN',
    says: /nothing at all/,
  },
]

for (const row of ROWS) {
  it(`detect: ${row.name}`, () => {
    const manifest = row.manifest === undefined ? undefined : parseManifest(row.manifest)
    const run = () => detectRuntime(tree(...row.files), manifest, row.wanted)
    if (row.fault === undefined) {
      assert.deepEqual(run(), { runtime: row.runtime, entry: row.entry })
      return
    }
    assert.throws(run, (error) => {
      assert.ok(Fault.is(error, row.fault), String(error))
      assert.match(error.message, row.says ?? /./)
      return true
    })
  })
}

function counts(manifest: string): boolean {
  return parseManifest(manifest).dependencies
}

it('package.json: dependencies of every kind that npm installs count, development ones do not', () => {
  assert.equal(counts('{}'), false)
  assert.equal(counts('{"dependencies":{}}'), false)
  assert.equal(counts('{"devDependencies":{"a":"1"}}'), false)
  assert.equal(counts('{"dependencies":{"a":"1"}}'), true)
  assert.equal(counts('{"optionalDependencies":{"a":"1"}}'), true)
  assert.equal(counts('{"peerDependencies":{"a":"1"}}'), true)
  assert.equal(counts('\uFEFF{"workspaces":["a"]}'), true)
  assert.throws(() => counts('{'), { code: 'BUNDLE_INVALID', message: /package\.json is not JSON/ })
  assert.throws(() => counts('[]'), { code: 'BUNDLE_INVALID' })
})

it('requirements.txt of comments asks for nothing', () => {
  assert.equal(hasRequirements('# nothing\n\n   \n'), false)
  assert.equal(hasRequirements('# one\nsix==1.16.0\n'), true)
})
