import { open, statfs } from 'node:fs/promises'
import type { Heartbeat } from '#shared/schemas/health.ts'

export type HostSample = Heartbeat['host']

const KIB_PER_MIB = 1024
const BYTES_PER_MIB = 1024 * 1024
/** The totals come first in each of the files. */
const HEAD_BYTES = 1024

/** Jiffies since boot. */
export interface CpuTimes {
  readonly busy: number
  readonly total: number
}

export interface HostSamplerOptions {
  /** Any path on the disk that is reported. */
  readonly folder: string
  /** Where procfs is; default `/proc`. */
  readonly proc?: string
}

/** What this host has left, from procfs: four small reads per sample, no child process. */
export class HostSampler {
  readonly #folder: string
  readonly #proc: string
  #times: CpuTimes = { busy: 0, total: 0 }
  #last: { readonly sample: Promise<HostSample>; readonly atMs: number } | undefined

  constructor({ folder, proc = '/proc' }: HostSamplerOptions) {
    this.#folder = folder
    this.#proc = proc
  }

  /**
   * A sample that is at most `maxAgeMs` old; callers at the same time share one. CPU use is that since the sample before; of
   * the first, since boot.
   */
  sample(maxAgeMs: number): Promise<HostSample> {
    const nowMs = performance.now()
    if (this.#last === undefined || nowMs - this.#last.atMs > maxAgeMs) {
      this.#last = { sample: this.#read(), atMs: nowMs }
    }
    return this.#last.sample
  }

  async #read(): Promise<HostSample> {
    const read = (name: string) => readHead(`${this.#proc}/${name}`)
    const [stat, memory, load, disk] = await Promise.all([
      read('stat'),
      read('meminfo'),
      read('loadavg'),
      statfs(this.#folder),
    ])
    const times = parseCpuTimes(stat)
    const share = cpuShare(this.#times, times)
    this.#times = times
    return {
      cpuShare: share,
      load1: Number(load.split(' ')[0]) || 0,
      ...parseMemory(memory),
      agentRssMiB: Math.round(process.memoryUsage.rss() / BYTES_PER_MIB),
      diskMiB: Math.round((disk.blocks * disk.bsize) / BYTES_PER_MIB),
      // `bavail`: what is reserved for root is not ours to use.
      diskFreeMiB: Math.round((disk.bavail * disk.bsize) / BYTES_PER_MIB),
    }
  }
}

/**
 * The beginning of a file of procfs, which has all that is parsed here. `readFile` takes 64 KiB and more for a file that does not say
 * how long it is: garbage of 5 MiB a minute in an agent that has nothing to do.
 */
async function readHead(path: string): Promise<string> {
  await using file = await open(path)
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(HEAD_BYTES), 0, HEAD_BYTES, 0)
  return buffer.toString('latin1', 0, bytesRead)
}

/** First line of /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice (proc(5)). */
export function parseCpuTimes(stat: string): CpuTimes {
  const fields = /^cpu +(.*)$/m.exec(stat)?.[1]?.split(' ').map(Number) ?? []
  // Guest time is part of user time already.
  const total = fields.slice(0, 8).reduce((sum, value) => sum + value, 0)
  const idle = (fields[3] ?? 0) + (fields[4] ?? 0)
  return { busy: total - idle, total }
}

/** Share of all cores in use between two readings, 0 to 1, three digits. */
export function cpuShare(before: CpuTimes, after: CpuTimes): number {
  const total = after.total - before.total
  if (total <= 0) return 0
  const share = (after.busy - before.busy) / total
  return Math.round(Math.min(1, Math.max(0, share)) * 1000) / 1000
}

/** `MemAvailable` is what the kernel believes can be had without swapping: more than `MemFree`. */
export function parseMemory(meminfo: string): Pick<HostSample, 'memoryMiB' | 'memoryFreeMiB'> {
  const mebibytes = (name: string): number => {
    const kib = new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(meminfo)?.[1]
    return Math.round(Number(kib ?? 0) / KIB_PER_MIB)
  }
  return { memoryMiB: mebibytes('MemTotal'), memoryFreeMiB: mebibytes('MemAvailable') }
}
