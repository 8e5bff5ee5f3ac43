import { Fault } from '#shared/fault.ts'
import { RUNTIMES, type Runtime } from '#shared/schemas/names.ts'
import type { Manifest } from './manifest.ts'
import type { TreeEntry } from './tree.ts'

export interface Detected {
  readonly runtime: Runtime
  /** File to load, relative to the function's folder. */
  readonly entry: string
}

const NODE_ENDINGS = ['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'] as const
const NODE_ENTRIES = ['index', 'fn', 'main'].flatMap((name) =>
  NODE_ENDINGS.map((ending) => `${name}.${ending}`),
)
/** `main.js` alone does not tell a function; it is only looked for once the runtime is known. */
const NODE_SIGNS = new Set([
  'package.json',
  ...NODE_ENTRIES.filter((name) => !name.startsWith('main.')),
])
const PYTHON_ENTRIES = ['fn.py', 'main.py']
const PYTHON_SIGNS = new Set([...PYTHON_ENTRIES, 'requirements.txt'])
const SHELL_ENTRY = 'fn.sh'

/**
 * Which runtime a function needs and which file it loads, from the names of its files. Pure.
 *
 * | found at the top                                   | runtime |
 * | -------------------------------------------------- | ------- |
 * | `fn.py`, `main.py`, `requirements.txt`             | python3 |
 * | `package.json`, `index.*`, `fn.*` (js, mjs, ts...) | nodejs  |
 * | `fn.sh`, or a single executable file               | binary  |
 *
 * @param wanted - Wins over what the files look like.
 * @throws Fault `RUNTIME_UNKNOWN` (nothing or more than one found), `BUNDLE_INVALID` (no file to load)
 */
export function detectRuntime(
  tree: readonly TreeEntry[],
  manifest: Manifest | undefined,
  wanted?: Runtime,
): Detected {
  const runtime = wanted ?? guessRuntime(tree)
  const entry = findEntry(runtime, tree, manifest)
  return { runtime, entry }
}

function guessRuntime(tree: readonly TreeEntry[]): Runtime {
  const names = topFiles(tree)
  const signs: Record<Runtime, string[]> = {
    nodejs: names.filter((name) => NODE_SIGNS.has(name)),
    python3: names.filter((name) => PYTHON_SIGNS.has(name)),
    binary: names.filter((name) => name === SHELL_ENTRY),
  }
  const found = RUNTIMES.filter((runtime) => signs[runtime].length > 0)
  const [only] = found
  if (only !== undefined && found.length === 1) return only
  if (only === undefined && topExecutables(tree).length === 1) return 'binary'
  const option = 'say which with --runtime nodejs, python3 or binary (API: ?runtime=)'
  if (found.length > 1) {
    const list = found.map((runtime) => `${signs[runtime].join(', ')} (${runtime})`).join(' and ')
    throw new Fault('RUNTIME_UNKNOWN', `the files fit more than one runtime: ${list}; ${option}`)
  }
  throw new Fault(
    'RUNTIME_UNKNOWN',
    `no runtime fits these files: ${shownTop(tree)}; expected fn.py or main.py (python3), package.json or index.js (nodejs), ` +
      `fn.sh or one executable (binary); ${option}`,
  )
}

function findEntry(
  runtime: Runtime,
  tree: readonly TreeEntry[],
  manifest: Manifest | undefined,
): string {
  const files = new Set(tree.filter((entry) => entry.kind !== 'folder').map((entry) => entry.path))
  if (runtime === 'nodejs') return nodeEntry(files, manifest, tree)
  if (runtime === 'python3') {
    return orMissing(
      PYTHON_ENTRIES.find((name) => files.has(name)),
      runtime,
      'fn.py or main.py',
      tree,
    )
  }
  const executables = topExecutables(tree)
  const binary = files.has(SHELL_ENTRY)
    ? SHELL_ENTRY
    : (executables.find((name) => name === 'fn') ??
      (executables.length === 1 ? executables[0] : undefined))
  return orMissing(binary, runtime, 'fn.sh, fn, or exactly one executable file', tree)
}

/** As `require()` would look: `main` as a file, with an ending, as a folder; then the usual names. */
function nodeEntry(
  files: ReadonlySet<string>,
  manifest: Manifest | undefined,
  tree: readonly TreeEntry[],
): string {
  if (manifest?.main !== undefined) {
    const main = manifest.main.replace(/^(\.?\/)+/, '').replace(/\/+$/, '')
    const candidates = [
      main,
      ...NODE_ENDINGS.map((ending) => `${main}.${ending}`),
      ...NODE_ENDINGS.map((ending) =>
        main === '' ? `index.${ending}` : `${main}/index.${ending}`,
      ),
    ]
    const found = candidates.find((name) => files.has(name))
    if (found !== undefined) return found
    throw new Fault(
      'BUNDLE_INVALID',
      `package.json says main is "${manifest.main}", which is not in the upload (is it made by a build step? run that first); ` +
        `found: ${shownTop(tree)}`,
    )
  }
  return orMissing(
    NODE_ENTRIES.find((name) => files.has(name)),
    'nodejs',
    'index.js, fn.js (or .mjs, .ts, ...), or "main" in package.json',
    tree,
  )
}

function orMissing(
  entry: string | undefined,
  runtime: Runtime,
  expected: string,
  tree: readonly TreeEntry[],
): string {
  if (entry !== undefined) return entry
  throw new Fault(
    'BUNDLE_INVALID',
    `runtime ${runtime} needs ${expected}; found: ${shownTop(tree)}`,
  )
}

function topFiles(tree: readonly TreeEntry[]): string[] {
  return tree
    .filter((entry) => entry.kind !== 'folder' && !entry.path.includes('/'))
    .map((entry) => entry.path)
}

function topExecutables(tree: readonly TreeEntry[]): string[] {
  return tree
    .filter((entry) => entry.kind === 'file' && entry.executable && !entry.path.includes('/'))
    .map((entry) => entry.path)
}

const SHOWN_MAX = 12

function shownTop(tree: readonly TreeEntry[]): string {
  const top = tree
    .filter((entry) => !entry.path.includes('/'))
    .map((entry) => (entry.kind === 'folder' ? `${entry.path}/` : entry.path))
  if (top.length === 0) return 'nothing at all'
  const more = top.length > SHOWN_MAX ? `, and ${top.length - SHOWN_MAX} more` : ''
  return top.slice(0, SHOWN_MAX).join(', ') + more
}
