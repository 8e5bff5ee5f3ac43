import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { it } from 'node:test'

const ROOT = resolve(import.meta.dirname, '../..')

interface Entry {
  readonly version?: string
  readonly resolved?: string
  /** Comes inside the package above it, under that one's hash. */
  readonly inBundle?: boolean
  readonly integrity?: string
  readonly os?: readonly string[]
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

const lock: { readonly packages: Readonly<Record<string, Entry>> } = JSON.parse(
  readFileSync(join(ROOT, 'package-lock.json'), 'utf8'),
)

it('the lock file holds the packages of every platform: npm ci refuses one that was made where some could not be seen', () => {
  const missing: string[] = []
  let seen = 0
  for (const [path, { optionalDependencies = {} }] of Object.entries(lock.packages)) {
    for (const name of Object.keys(optionalDependencies)) {
      seen += 1
      if (!isThere(path, name)) missing.push(`${name} of ${path}`)
    }
  }
  assert.ok(seen > 50, `${seen} optional dependencies seen`)
  assert.deepEqual(missing, [])
})

it('the lock file names no registry, and a hash for everything that Linux installs', () => {
  const entries = Object.entries(lock.packages).filter(([path]) => path !== '')
  assert.deepEqual(
    entries.filter(([, { resolved }]) => resolved !== undefined).map(([path]) => path),
    [],
  )
  const runsHere = entries.filter(([path]) => /linux-(x64|arm64)(-gnu)?$/.test(path))
  assert.ok(runsHere.length > 5, `${runsHere.length} packages of our platforms seen`)
  const plain = entries.filter(([, { os, inBundle }]) => os === undefined && inBundle !== true)
  assert.deepEqual(
    [...plain, ...runsHere].filter(([, { integrity }]) => integrity === undefined),
    [],
  )
})

/** Node's own rule: beside the package, then in each folder above it. */
function isThere(path: string, name: string): boolean {
  for (let folder = path; ; folder = folder.slice(0, folder.lastIndexOf('node_modules/'))) {
    folder = folder.replace(/\/$/, '')
    if (`${folder === '' ? '' : `${folder}/`}node_modules/${name}` in lock.packages) return true
    if (folder === '') return false
  }
}
