import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'

/** A dockerd that was killed leaves its mounts; without this its folder could not be removed. */
export async function unmountBelow(folder: string): Promise<void> {
  for (const path of (await mountsBelow(folder)).toReversed()) {
    try {
      await promisify(execFile)('umount', ['--lazy', path])
    } catch (error) {
      // Somebody else, a shim that ends, may have been faster.
      if ((await mountsBelow(folder)).includes(path)) throw error
    }
  }
}

async function mountsBelow(folder: string): Promise<readonly string[]> {
  const mounts = await readFile('/proc/mounts', 'utf8')
  const paths = mounts.split('\n').map((line) => line.split(' ')[1] ?? '')
  return paths.filter((one) => one.startsWith(`${folder}/`))
}

/**
 * Ends the shims of an engine whose state is below `folder`: one that was just starting a container when its engine was killed belongs
 * to no container that anybody could remove.
 */
export async function endShimsBelow(folder: string): Promise<void> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.includes('containerd-shim') && command.includes(folder)) end(Number(pid))
  }
}

function end(pid: number): void {
  try {
    process.kill(pid)
  } catch (error) {
    // It has ended by itself since it was listed.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
