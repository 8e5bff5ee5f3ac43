import { readdir, rm, stat } from 'node:fs/promises'
import module from 'node:module'
import { join } from 'node:path'

/** A release takes about one; each version of Node and each place of a release leaves its own. */
const BYTES_MAX = 32 * 1_048_576

/**
 * Writes what Node has compiled by now, for the next start (`NODE_COMPILE_CACHE`): a host that loses its power does not end an agent in a way
 * that would do so. Throws all of `folder` away when it has grown too large.
 */
export async function keepCompiled(folder: string, bytesMax = BYTES_MAX): Promise<void> {
  module.flushCompileCache()
  try {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true })
    const files = entries.filter((entry) => entry.isFile())
    const sizes = files.map(
      async ({ parentPath, name }) => (await stat(join(parentPath, name))).size,
    )
    const bytes = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
    if (bytes > bytesMax) await rm(folder, { recursive: true, force: true })
  } catch {
    // There is none, or another agent's start is just writing there: a cache is no reason to complain.
  }
}
