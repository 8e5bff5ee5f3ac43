import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type, type Static } from 'typebox'
import { Check } from 'typebox/value'
import { Fault } from '#shared/fault.ts'

const LEFTOVER_TERM_MS = 8_000

/** A process, told apart from a later one with the same number by when it began. */
const ProcessId = Type.Object({ pid: Type.Integer({ minimum: 1 }), startTicks: Type.String() })
type ProcessId = Static<typeof ProcessId>

/** `run.json`: who runs on this data folder, and the processes it started. */
const Run = Type.Object({
  supervisor: ProcessId,
  startedAtMs: Type.Integer(),
  children: Type.Record(Type.String(), ProcessId),
})
type Run = Static<typeof Run>

/**
 * The data folder is ours: two supervisors on one folder would fight over sockets and state.
 *
 * The lock is an exclusive transaction on `lock.db`: the kernel takes it back when its holder dies, however it dies.
 * `run.json` beside it is for people, for `stop`, and for cleaning up after a supervisor that was killed.
 */
export interface FolderLock extends Disposable {
  /** Notes a child's process, so that the next start can end it should this one be killed. */
  note(name: string, pid: number | undefined): void
  /**
   * Ends what a killed supervisor left behind, and resolves to their names. They end by themselves then (their parent's
   * death is signalled to them), but that takes as long as a clean stop.
   */
  endLeftovers(signal: AbortSignal): Promise<readonly string[]>
}

/** @throws Fault `CONFLICT` naming who runs */
export function lockFolder(data: string): FolderLock {
  mkdirSync(data, { recursive: true, mode: 0o700 })
  const database = new DatabaseSync(join(data, 'lock.db'), { timeout: 0 })
  try {
    database.exec('BEGIN EXCLUSIVE')
  } catch (cause) {
    database.close()
    const run = readRun(data)
    const who =
      run === undefined ? '' : ` (process ${run.supervisor.pid}, since ${time(run.startedAtMs)})`
    throw new Fault(
      'CONFLICT',
      `Shoal already runs on ${data}${who}. Stop it with Ctrl+C there or: node deploy/start.mjs stop. ` +
        'Or run another one beside it: give it its own SHOAL_DATA and ports',
      {},
      { cause },
    )
  }
  const left = readRun(data)?.children ?? {}
  const run: Run = { supervisor: own(), startedAtMs: Date.now(), children: { ...left } }
  const write = () => writeFileSync(join(data, 'run.json'), JSON.stringify(run))
  write()
  return {
    note(name, pid) {
      const id = pid === undefined ? undefined : processId(pid)
      if (id === undefined) delete run.children[name]
      else run.children[name] = id
      write()
    },
    async endLeftovers(signal) {
      const alive = Object.entries(left).filter(([, id]) => lives(id))
      await endAll(
        alive.map(([, id]) => id),
        signal,
      )
      for (const name of Object.keys(left)) delete run.children[name]
      write()
      return alive.map(([name]) => name)
    },
    [Symbol.dispose]() {
      rmSync(join(data, 'run.json'), { force: true })
      database.close()
    },
  }
}

async function endAll(processes: readonly ProcessId[], signal: AbortSignal): Promise<void> {
  for (const { pid } of processes) send(pid, 'SIGTERM')
  const deadlineMs = Date.now() + LEFTOVER_TERM_MS
  while (processes.some(lives)) {
    if (Date.now() > deadlineMs) {
      for (const { pid } of processes.filter(lives)) send(pid, 'SIGKILL')
    }
    await sleep(50, undefined, { signal })
  }
}

/** Asks the supervisor of a data folder to stop. Resolves to its process id, or undefined when none runs. */
export async function stopRunning(data: string, timeoutMs: number): Promise<number | undefined> {
  const run = readRun(data)
  if (run === undefined || !lives(run.supervisor)) return undefined
  send(run.supervisor.pid, 'SIGTERM')
  const deadlineMs = Date.now() + timeoutMs
  while (lives(run.supervisor)) {
    if (Date.now() > deadlineMs) {
      throw new Fault(
        'CONFLICT',
        `process ${run.supervisor.pid} does not stop within ${timeoutMs} ms`,
      )
    }
    await sleep(50)
  }
  return run.supervisor.pid
}

function readRun(data: string): Run | undefined {
  try {
    const run: unknown = JSON.parse(readFileSync(join(data, 'run.json'), 'utf8'))
    return Check(Run, run) ? run : undefined
  } catch {
    return undefined
  }
}

function own(): ProcessId {
  return processId(process.pid) ?? { pid: process.pid, startTicks: '' }
}

/** Field 22 of /proc/<pid>/stat: when it began, in clock ticks since boot. The name before it may hold blanks. */
function processId(pid: number): ProcessId | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z') return undefined
    return { pid, startTicks: fields[19] ?? '' }
  } catch {
    return undefined
  }
}

function lives(id: ProcessId): boolean {
  return processId(id.pid)?.startTicks === id.startTicks
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended in between.
  }
}

function time(atMs: number): string {
  return new Date(atMs).toISOString().replace('T', ' ').slice(0, 19) + ' UTC'
}
