import { cp, mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { download, saveStream, type DownloadOptions } from './download.ts'
import { entryPath } from './entry-path.ts'
import type { Source } from './model.ts'
import { isJunk, readTree } from './tree.ts'
import { sniffArchive, unpackFile } from './unpack.ts'

export type FetchOptions = Omit<DownloadOptions, 'bytesMax'>

/**
 * Brings a source into a folder of its own below `work` and returns that folder.
 *
 * Version control, byte code and Finder's files are left out. When all of an archive lies in one folder, that folder is
 * taken for the function (archives made of a folder, or by a code host), except when that would break it: a Python package
 * (`__init__.py`), or a folder of dependencies. With a subfolder, exactly that one is taken.
 *
 * @throws Fault `BUNDLE_INVALID`
 */
export async function acquireSource(
  source: Source,
  work: string,
  options: FetchOptions,
  signal: AbortSignal,
): Promise<string> {
  const into = path.join(work, 'source')
  await mkdir(into)
  if (source.kind === 'folder') {
    await copyFolder(source.path, into)
    return into
  }
  const upload = path.join(work, 'upload')
  const bytesMax = LIMITS.sourceBytesMax
  if (source.kind === 'url') await download(source.url, upload, { ...options, bytesMax }, signal)
  else await saveStream(source.body, upload, bytesMax, 'the upload', signal)
  await unpackFile(upload, await sniffArchive(upload), into, { skip: isJunk }, signal)
  await rm(upload)
  const subfolder = source.kind === 'url' ? (source.subfolder ?? '') : ''
  if (subfolder.replaceAll('/', '') !== '') return findSubfolder(into, subfolder)
  return (await wrapper(into)) ?? into
}

async function copyFolder(from: string, into: string): Promise<void> {
  const tree = await readTree(from, isJunk).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      throw new Fault('BUNDLE_INVALID', `there is no folder ${from}`, {}, { cause: error })
    }
    throw error
  })
  for (const entry of tree) {
    const target = path.join(into, entry.path)
    if (entry.kind === 'folder') await mkdir(target)
    else
      await cp(path.join(from, entry.path), target, { dereference: false, verbatimSymlinks: true })
  }
}

/** As it is written, else inside of the one folder that holds everything. */
async function findSubfolder(root: string, wanted: string): Promise<string> {
  const relative = entryPath(wanted.replace(/^\/+/, ''))
  if ('problem' in relative) throw new Fault('BUNDLE_INVALID', `subfolder: ${relative.problem}`)
  const single = await onlyFolder(root)
  const candidates = [root, ...(single === undefined ? [] : [path.join(root, single)])]
  // `readTree` has the links; a subfolder that is reached through one is not taken.
  for (const base of candidates) {
    const folders = await readTree(base)
    if (folders.some((entry) => entry.kind === 'folder' && entry.path === relative.path)) {
      // Away from its surroundings, so that its links are judged by what is left.
      const alone = `${root}-sub`
      await rename(path.join(base, relative.path), alone)
      await readTree(alone)
      return alone
    }
  }
  const top = (await readdir(root)).slice(0, 10).join(', ')
  throw new Fault('BUNDLE_INVALID', `subfolder "${wanted}" is not in the archive; it holds: ${top}`)
}

const NEVER_A_WRAPPER = new Set(['node_modules', '.deps'])

async function wrapper(root: string): Promise<string | undefined> {
  const single = await onlyFolder(root)
  if (single === undefined || NEVER_A_WRAPPER.has(single)) return undefined
  const inner = path.join(root, single)
  const isPackage = await stat(path.join(inner, '__init__.py')).then(
    () => true,
    () => false,
  )
  return isPackage ? undefined : inner
}

async function onlyFolder(root: string): Promise<string | undefined> {
  const [first, ...others] = await readdir(root, { withFileTypes: true })
  return first?.isDirectory() === true && others.length === 0 ? first.name : undefined
}
