import { readFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'

/** USER_HZ: what procfs counts processor time in, on every Linux that Shoal runs on. */
const TICK_MS = 10

/** Where a process' memory is, in MiB. */
export interface Memory {
  /** All that is resident: what `ps` calls RSS. */
  readonly rssMiB: number
  /** Of it, what is this process' own: heap, stacks. */
  readonly anonMiB: number
  /** Of it, pages of files, shared with every process that has them mapped: the Node program itself. */
  readonly fileMiB: number
}

/** @throws Error when the process is gone */
export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const mebibytes = (name: string): number => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]
    return Math.round(Number(kib ?? 0) / 102.4) / 10
  }
  return {
    rssMiB: mebibytes('VmRSS'),
    anonMiB: mebibytes('RssAnon'),
    fileMiB: mebibytes('RssFile'),
  }
}

/** Processor time that a process has used since its start, all threads. @throws Error when it is gone */
export function cpuMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The name in parentheses may hold anything; utime and stime are the 14th and 15th field of proc(5).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

/** True when a process has ended, also while it waits for somebody to collect its exit code: not every first process does that. */
export function hasEnded(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.charAt(stat.lastIndexOf(')') + 2) === 'Z'
  } catch {
    return true
  }
}

/** Pids of the processes whose environment (`NAME=value`, as they were started) is meant. */
export async function processesWhere(
  isMeant: (environment: readonly string[]) => boolean,
): Promise<readonly number[]> {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const environ = await readFile(`/proc/${name}/environ`, 'utf8').catch(() => '')
    if (isMeant(environ.split('\0'))) found.push(Number(name))
  }
  return found
}
