import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'

/** A dockerd that was killed leaves its mounts; without this its folder could not be removed. */
export async function unmountBelow(folder: string): Promise<void> {
  const mounts = await readFile('/proc/mounts', 'utf8')
  const paths = mounts.split('\n').map((line) => line.split(' ')[1] ?? '')
  for (const path of paths.filter((one) => one.startsWith(`${folder}/`)).toReversed()) {
    await promisify(execFile)('umount', ['--lazy', path])
  }
}
