import { open, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/**
 * Writes a small file so that a power cut leaves either the old content or the new one: temporary file in the same folder,
 * fsync, rename, fsync of the folder. Readable by the owner only.
 */
export async function writeDurable(path: string, text: string): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.new`)
  const file = await open(temporary, 'w', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  await syncFolder(dirname(path))
}

/** Makes names in a folder (created, renamed, removed) survive a power cut. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
