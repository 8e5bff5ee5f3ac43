import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Licence texts and the notices that Apache-2.0 asks to pass on. */
const TEXTS = /^(licen[cs]e|notice|copying)(-[\w.]+)?(\.(md|txt))?$/i

export interface ThirdParty {
  readonly name: string
  readonly version: string
  readonly licence: string
  /** All licence and notice files of the package. */
  readonly text: string
}

/**
 * The packages that files of a bundle come from, by name, with their licences.
 *
 * @param inputs - Paths below `root`, as esbuild's metafile has them
 * @throws Error for a package that names no licence
 */
export async function thirdParties(root: string, inputs: readonly string[]): Promise<ThirdParty[]> {
  const folders = new Set(inputs.map(packageFolder).filter((folder) => folder !== undefined))
  const found = await Promise.all([...folders].map((folder) => readParty(join(root, folder))))
  const unique = new Map(found.map((party) => [`${party.name} ${party.version}`, party]))
  return [...unique.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

/** One file for people: what is in the bundles that is not ours, and on which terms. */
export function noticesText(parties: readonly ThirdParty[]): string {
  const parts = parties.map(
    ({ name, version, licence, text }) => `${name} ${version} (${licence})\n\n${text.trim()}\n`,
  )
  const head = `These programs contain ${parties.length} packages by others:\n`
  return [head, ...parts].join(`\n${'-'.repeat(78)}\n\n`)
}

/**
 * `node_modules/a/node_modules/@b/c/lib/x.js` is of `node_modules/a/node_modules/@b/c`. A colon is behind the name of what a plugin made; the
 * file that it was made from is there, too.
 */
function packageFolder(input: string): string | undefined {
  return /^(?:[^:]*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(input)?.[0]
}

async function readParty(folder: string): Promise<ThirdParty> {
  const description: { name?: string; version?: string; license?: unknown } = JSON.parse(
    await readFile(join(folder, 'package.json'), 'utf8'),
  )
  const { name = folder, version = '', license: licence } = description
  if (typeof licence !== 'string' || licence === '') throw new Error(`${name} names no licence`)
  const names = (await readdir(folder)).filter((file) => TEXTS.test(file)).toSorted()
  const texts = await Promise.all(names.map((file) => readFile(join(folder, file), 'utf8')))
  // A few packages have their licence by name only.
  const text = texts.length > 0 ? texts.join('\n\n') : `Licence: ${licence}`
  return { name, version, licence, text }
}
