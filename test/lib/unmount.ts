import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'

/** A dockerd that was killed leaves its mounts; without this its folder could not be removed. */
export async function unmountBelow(folder: string): Promise<void> {
  const mounts = await readFile('/proc/mounts', 'utf8')
  const paths = mounts.split('\n').map((line) => line.split(' ')[1] ?? '')
  for (const path of paths.filter((one) => one.startsWith(`${folder}/`)).toReversed()) {
    await promisify(execFile)('umount', ['--lazy', path])
  }
}

/**
 * Ends the shims of an engine whose state is below `folder`: one that was just starting a container when its engine was killed belongs
 * to no container that anybody could remove.
 */
export async function endShimsBelow(folder: string): Promise<void> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.includes('containerd-shim') && command.includes(folder)) process.kill(Number(pid))
  }
}
