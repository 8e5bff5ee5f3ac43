import { execFile } from 'node:child_process'
import { setPriority } from 'node:os'
import { promisify } from 'node:util'
import type { HandlerLimits } from '../engine.ts'
import { identify } from './proc.ts'

/**
 * Starts the command below limits that a shell can set, and leaves its exit code in a file: the agent that asks for it
 * may not be the one that started it. `$1` is that file, the command follows.
 */
const SCRIPT = `
ulimit -c 0
ulimit -n "$SHOAL_ULIMIT_FILES" 2>/dev/null
ulimit -d "$SHOAL_ULIMIT_DATA_KIB" 2>/dev/null
unset SHOAL_ULIMIT_FILES SHOAL_ULIMIT_DATA_KIB
exit_file=$1
shift
nice -n "$SHOAL_NICE" "$@" </dev/null
code=$?
echo "$code" >"$exit_file.new" && mv "$exit_file.new" "$exit_file"
exit "$code"
`

const OPEN_FILES_MAX = 4096
/** What interpreters reserve and hardly touch counts as data: V8 takes 512 MiB for code alone, threads their stacks. */
const DATA_SLACK_MIB = 1024

/** Command line of the shell around a runner. */
export function launchCommand(exitFile: string, command: readonly string[]): [string, string[]] {
  return ['/bin/sh', ['-c', SCRIPT, 'shoal-handler', exitFile, ...command]]
}

/**
 * What the shell and the runner get to see of limits.
 *
 * Enforced: private writable memory (RLIMIT_DATA, with slack, per process), V8's heap, open files, core files, priority.
 * Not enforced, because Unix has these per user and not per program: number of processes, CPU share, network, file system.
 */
export function launchEnvironment(limits: HandlerLimits): Record<string, string> {
  const heapMiB = Math.max(16, Math.floor(limits.memoryMiB * 0.75))
  return {
    SHOAL_ULIMIT_FILES: String(OPEN_FILES_MAX),
    SHOAL_ULIMIT_DATA_KIB: String(dataKiB(limits)),
    SHOAL_NICE: String(niceness(limits)),
    NODE_OPTIONS: `--max-old-space-size=${heapMiB}`,
    GOMEMLIMIT: `${limits.memoryMiB}MiB`,
  }
}

/**
 * Gives running processes other limits, as far as `launchEnvironment` enforces them from outside; V8's heap keeps its size.
 * More memory or more priority than before needs the rights of root. Processes that have ended are no error.
 *
 * @throws Error of `prlimit` (util-linux) or of the system call
 */
export async function limitProcesses(
  pids: readonly number[],
  limits: HandlerLimits,
  signal: AbortSignal,
): Promise<void> {
  const data = `--data=${dataKiB(limits) * 1024}`
  for (const pid of pids) {
    try {
      await promisify(execFile)('prlimit', ['--pid', String(pid), data], { signal })
      setPriority(pid, niceness(limits))
    } catch (error) {
      if (identify(pid) !== undefined) throw error
    }
  }
}

function dataKiB({ memoryMiB }: HandlerLimits): number {
  return (memoryMiB + DATA_SLACK_MIB) * 1024
}

function niceness({ cpus }: HandlerLimits): number {
  return cpus < 1 ? 10 : 5
}
