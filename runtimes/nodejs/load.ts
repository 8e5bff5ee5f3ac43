import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Call } from './call.ts'
import { classicCaller, type ClassicFunction } from './classic.ts'
import { asText, hasFields } from './guards.ts'
import { nativeCaller, type NativeFunction } from './native.ts'

export interface LoadOptions {
  /** The bundle's folder. */
  readonly dir: string
  /** The file to load, relative to `dir`; undefined: it is found. */
  readonly entry: string | undefined
  readonly fn: string
  readonly release: string
}

export type Contract = 'classic' | 'native'

export interface LoadedFunction {
  readonly contract: Contract
  readonly call: (call: Call) => void
}

const EXTENSIONS = ['.js', '.mjs', '.cjs', '.ts', '.mts', '.cts']
const NAMES = ['index', 'fn']

/**
 * Loads the function of a bundle: sets the working directory, imports the entry, and tells the contract.
 *
 * An ES module's default export is native, what a CommonJS module exports is classic; an export named `contract` says
 * otherwise. A CommonJS file that a compiler made of an ES module (`__esModule`) counts as the ES module that it was.
 */
export async function loadFunction(options: LoadOptions): Promise<LoadedFunction> {
  const { dir, entry, fn, release } = options
  process.chdir(dir)
  const file = entry === undefined ? findEntry(dir) : join(dir, entry)
  if (!isFile(file)) throw new Error(`the entry ${entry} is not a file of the function`)
  const namespace: unknown = await import(pathToFileURL(file).href)
  const { contract, fn: found } = exportOf(namespace, file.slice(dir.length).replace(/^\//, ''))
  return {
    contract,
    call: contract === 'native' ? nativeCaller(found, { fn, release }) : classicCaller(found),
  }
}

/**
 * The entry of a bundle: what `package.json` names, else `index.*`, else `fn.*`.
 *
 * @throws Error that says what was looked for
 */
export function findEntry(dir: string): string {
  const named = packageEntry(dir)
  for (const name of named === undefined ? NAMES : [named, ...NAMES]) {
    const path = join(dir, name)
    if (isFile(path)) return path
    for (const extension of EXTENSIONS) if (isFile(path + extension)) return path + extension
    for (const extension of EXTENSIONS) {
      const index = join(path, `index${extension}`)
      if (isFile(index)) return index
    }
  }
  throw new Error(
    `no function found: neither "main" or "exports" in package.json nor a file ${NAMES.join('.* or ')}.* (${EXTENSIONS.join(', ')})`,
  )
}

function packageEntry(dir: string): string | undefined {
  const path = join(dir, 'package.json')
  if (!existsSync(path)) return undefined
  const manifest: unknown = JSON.parse(readFileSync(path, 'utf8'))
  if (!hasFields(manifest)) return undefined
  const { exports, main } = manifest
  return exportTarget(exports) ?? (typeof main === 'string' ? main : undefined)
}

/** The file that `exports` names for the package itself. */
function exportTarget(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (!hasFields(value)) return undefined
  for (const key of ['.', 'node', 'import', 'module', 'require', 'default']) {
    const target = exportTarget(value[key])
    if (target !== undefined) return target
  }
  return undefined
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false
}

type UserFunction = ClassicFunction & NativeFunction

interface Found {
  readonly fn: UserFunction
  readonly contract: Contract
}

function exportOf(namespace: unknown, file: string): Found {
  const common = hasFields(namespace) && 'module.exports' in namespace
  const exported = common ? namespace['module.exports'] : namespace
  const compiled = common && property(exported, '__esModule') === true
  const fn = common && typeof exported === 'function' ? exported : property(exported, 'default')
  if (!isUserFunction(fn)) {
    throw new Error(
      common
        ? `${file} exports no function: write module.exports = (req, res) => { ... }`
        : `${file} has no function as its default export: write export default async (request, context) => new Response(...)`,
    )
  }
  const contract = property(exported, 'contract') ?? (common && !compiled ? 'classic' : 'native')
  if (contract !== 'classic' && contract !== 'native') {
    throw new Error(
      `${file} exports contract = ${asText(contract) || typeof contract}; it is 'classic' or 'native'`,
    )
  }
  return { fn, contract }
}

function isUserFunction(value: unknown): value is UserFunction {
  return typeof value === 'function'
}

function property(value: unknown, name: string): unknown {
  return hasFields(value) ? value[name] : undefined
}
