import { readFileSync, readdirSync } from 'node:fs'

/** Names one process for ever: a pid alone is used again, also after a reboot. */
export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks from boot to its start: field 22 of /proc/<pid>/stat. */
  readonly startTicks: string
  readonly bootId: string
}

let boot: string | undefined

/** Of the kernel that runs now; the same as long as this process lives. */
function bootId(): string {
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  return boot
}

/** The process that has this pid now; undefined when there is none, or only its zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  const { state, startTicks } = readStat(pid)
  if (startTicks === undefined || state === 'Z' || state === 'X') return undefined
  return { pid, startTicks, bootId: bootId() }
}

/** True while exactly this process runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  const now = identify(identity.pid)
  return now?.startTicks === identity.startTicks && now.bootId === identity.bootId
}

/** True while SIGSTOP holds it. */
export function isStopped(pid: number): boolean {
  return readStat(pid).state === 'T'
}

/**
 * False once SIGSTOP has reached it: it is stopped, or it waits in the kernel and will be before it runs again (a parent
 * whose vfork(2) ends with a child that is stopped itself).
 */
export function mayRun(pid: number): boolean {
  const { state } = readStat(pid)
  return state === 'R' || state === 'S'
}

/**
 * Pids of processes that have `entry` (`NAME=value`) in the environment they were started with: everything a handler has
 * forked, also what has left its process group, as long as it did not wipe its environment. Own processes only
 * (all when root).
 */
export function pidsWithEnvironment(entry: string): number[] {
  const found: number[] = []
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    if (readProc(`/proc/${pid}/environ`)?.split('\0').includes(entry) === true) found.push(pid)
  }
  return found
}

/** Sends a signal; a process that has ended is no error. Negative: a whole process group. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'ESRCH' && code !== 'EPERM') throw error
  }
}

/** Fields 3 and 22 of /proc/<pid>/stat; absent when there is no such process. */
function readStat(pid: number): { readonly state?: string; readonly startTicks?: string } {
  const stat = readProc(`/proc/${pid}/stat`)
  if (stat === undefined) return {}
  // The name in parentheses may hold anything, also spaces and parentheses: fields count from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [state, startTicks] = [fields[0], fields[19]]
  return { ...(state && { state }), ...(startTicks && { startTicks }) }
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // Ended, or somebody else's.
    return undefined
  }
}
