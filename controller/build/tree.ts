import { lstat, readdir, readlink } from 'node:fs/promises'
import path from 'node:path'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { linkProblem } from './entry-path.ts'

/** One entry of a source tree; `path` is relative, with `/`, and unique. */
export type TreeEntry =
  | { readonly kind: 'folder'; readonly path: string }
  | {
      readonly kind: 'file'
      readonly path: string
      readonly executable: boolean
      readonly bytes: number
    }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }

const JUNK = new Set(['.git', '__pycache__', '__MACOSX', '.DS_Store'])

/** True for what no function needs and archives often carry: version control, byte code, Finder's files. */
export function isJunk(relative: string): boolean {
  return relative.split('/').some((segment) => JUNK.has(segment))
}

/** Sorted by code units, so the order is the same everywhere. */
export function byPath(a: { readonly path: string }, b: { readonly path: string }): number {
  if (a.path === b.path) return 0
  return a.path < b.path ? -1 : 1
}

/**
 * Lists a folder and everything below it, sorted by path; symbolic links are not followed.
 *
 * @param skip - Entries (and what is below them) to leave out.
 * @throws Fault `BUNDLE_INVALID` for sockets, devices, links that leave the folder, or more than the limits allow
 */
export async function readTree(
  root: string,
  skip: (path: string, folder: boolean) => boolean = () => false,
): Promise<TreeEntry[]> {
  const entries: TreeEntry[] = []
  const open = ['']
  let bytes = 0
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    for (const child of await readdir(path.join(root, folder), { withFileTypes: true })) {
      const relative = folder === '' ? child.name : `${folder}/${child.name}`
      if (skip(relative, child.isDirectory())) continue
      const entry = await toEntry(root, relative)
      if (entry.kind === 'folder') open.push(relative)
      if (entry.kind === 'file') bytes += entry.bytes
      entries.push(entry)
      checkSize(entries.length, bytes)
    }
  }
  return entries.toSorted(byPath)
}

async function toEntry(root: string, relative: string): Promise<TreeEntry> {
  const full = path.join(root, relative)
  const stats = await lstat(full)
  if (stats.isDirectory()) return { kind: 'folder', path: relative }
  if (stats.isFile()) {
    const executable = (stats.mode & 0o111) !== 0
    return { kind: 'file', path: relative, executable, bytes: stats.size }
  }
  if (!stats.isSymbolicLink()) {
    throw new Fault(
      'BUNDLE_INVALID',
      `${relative} is neither a file, a folder nor a link: remove it`,
      {
        entry: relative,
      },
    )
  }
  const target = await readlink(full)
  const problem = linkProblem(relative, target)
  if (problem !== undefined) throw new Fault('BUNDLE_INVALID', problem, { entry: relative })
  return { kind: 'link', path: relative, target }
}

/** @throws Fault `BUNDLE_INVALID` */
export function checkSize(entries: number, bytes: number): void {
  if (entries > LIMITS.bundleFilesMax) {
    throw new Fault(
      'BUNDLE_INVALID',
      `more than ${LIMITS.bundleFilesMax} files: leave out what the function does not need (.shoalignore)`,
    )
  }
  if (bytes > LIMITS.bundleBytesMax) {
    const mib = LIMITS.bundleBytesMax / 1024 / 1024
    throw new Fault(
      'BUNDLE_INVALID',
      `more than ${mib} MiB unpacked: leave out what the function does not need (.shoalignore)`,
    )
  }
}
