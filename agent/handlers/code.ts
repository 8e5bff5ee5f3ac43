import {
  access,
  chmod,
  constants,
  copyFile,
  link,
  mkdir,
  readdir,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  utimes,
} from 'node:fs/promises'
import { join } from 'node:path'

/** Name of a function's code in its handler's folder. */
export const CODE = 'fn'
const UNFINISHED = '.fn'
const LINKS_AT_ONCE = 16
/** What `link` answers where it cannot be had: another file system, one without hard links, too many of one file. */
const NO_LINK: ReadonlySet<unknown> = new Set(['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'ENOSYS'])

/**
 * Puts the code of an unpacked bundle into a handler's folder, as `fn`: there completely or not at all. One that is there
 * already stays.
 *
 * Files are hard links, so 2,000 of them take some 35 ms and no space. A container sees its folder through a mount that is
 * read-only, so nothing in there can be written, however many links it has; a handler that is a plain process can write
 * whatever its user can, here as anywhere.
 */
export async function placeCode(bundleFolder: string, folder: string): Promise<void> {
  const target = join(folder, CODE)
  if (await isThere(target)) return
  const unfinished = join(folder, UNFINISHED)
  await rm(unfinished, { recursive: true, force: true })
  await linkTree(bundleFolder, unfinished)
  await rename(unfinished, target)
}

/** Makes `target` the same tree as `source`: own folders and symbolic links, the same files. */
async function linkTree(source: string, target: string): Promise<void> {
  const files: string[] = []
  await makeFolder(target)
  // A folder comes before what is in it.
  const entries = await readdir(source, { recursive: true, withFileTypes: true })
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name).slice(source.length)
    if (entry.isDirectory()) await makeFolder(target + path)
    else if (entry.isSymbolicLink()) await symlink(await readlink(source + path), target + path)
    else files.push(path)
  }
  const queue = files.values()
  const work = async (): Promise<void> => {
    for (const path of queue) await linkOrCopy(source + path, target + path)
  }
  await Promise.all(Array.from({ length: LINKS_AT_ONCE }, work))
}

/** Whatever the umask: the handler's own user must get in. */
async function makeFolder(path: string): Promise<void> {
  await mkdir(path)
  await chmod(path, 0o755)
}

async function linkOrCopy(source: string, target: string): Promise<void> {
  try {
    await link(source, target)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && NO_LINK.has(error.code))) throw error
    await copyFile(source, target, constants.COPYFILE_FICLONE)
    const { atime, mtime } = await stat(source)
    // Python compares it with its compiled files.
    await utimes(target, atime, mtime)
  }
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
