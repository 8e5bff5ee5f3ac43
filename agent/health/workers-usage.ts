import { readFile } from 'node:fs/promises'

/** The kernel's unit of processor time towards programs, whatever it counts in itself. */
const TICKS_PER_SECOND = 100

interface Usage {
  readonly cpuSeconds: number
  readonly residentBytes: number
}

/** What these processes use together; one that has gone counts as nothing. */
export async function workersUsage(pids: readonly number[]): Promise<Usage> {
  const all = await Promise.all(pids.map(usageOf))
  return {
    cpuSeconds: all.reduce((sum, one) => sum + one.cpuSeconds, 0),
    residentBytes: all.reduce((sum, one) => sum + one.residentBytes, 0),
  }
}

async function usageOf(pid: number): Promise<Usage> {
  const read = (name: string) => readFile(`/proc/${pid}/${name}`, 'latin1').catch(() => '')
  const [stat, status] = await Promise.all([read('stat'), read('status')])
  // Behind the program's name, which may hold anything: user and system time are fields 14 and 15 of proc(5).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return {
    cpuSeconds: (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / TICKS_PER_SECOND,
    residentBytes: Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024,
  }
}
