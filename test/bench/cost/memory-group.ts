import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const V1 = '/sys/fs/cgroup/memory'
const V2 = '/sys/fs/cgroup'
const MIB = 1024 * 1024

/** What a group of processes met at its limit. */
export interface GroupFacts {
  readonly limitMiB: number
  /** The most that was charged at once, page cache included; the kernel drops cache before it kills. */
  readonly peakMiB: number
  /** How often an allocation met the limit and the kernel had to make room. */
  readonly timesAtLimit: number
  readonly oomKills: number
}

/** A memory cgroup of our own, v1 or v2. Disposing removes it; its processes must have ended. */
export class MemoryGroup implements AsyncDisposable {
  readonly #path: string
  readonly #limitMiB: number
  readonly #v1: boolean

  private constructor(path: string, limitMiB: number, v1: boolean) {
    this.#path = path
    this.#limitMiB = limitMiB
    this.#v1 = v1
  }

  /** @throws Error where we may make none */
  static create(limitMiB: number): MemoryGroup {
    const v1 = existsSync(`${V1}/memory.limit_in_bytes`)
    const path = `${v1 ? V1 : V2}/shoal-bench-${process.pid}`
    mkdirSync(path)
    const bytes = String(limitMiB * MIB)
    writeFileSync(`${path}/${v1 ? 'memory.limit_in_bytes' : 'memory.max'}`, bytes)
    // No way out into swap.
    const swap = `${path}/${v1 ? 'memory.memsw.limit_in_bytes' : 'memory.swap.max'}`
    if (existsSync(swap)) writeFileSync(swap, v1 ? bytes : '0')
    return new MemoryGroup(path, limitMiB, v1)
  }

  /** Command line that joins the group and becomes `command`. */
  join(command: readonly string[]): readonly [string, ...string[]] {
    const script = `echo $$ >${this.#path}/cgroup.procs && exec "$@"`
    return ['/bin/sh', '-c', script, 'sh', ...command]
  }

  facts(): GroupFacts {
    const read = (name: string): string => readFileSync(`${this.#path}/${name}`, 'utf8')
    const limitMiB = this.#limitMiB
    if (this.#v1) {
      const peakMiB = mebibytes(read('memory.max_usage_in_bytes'))
      const oomKills = count(read('memory.oom_control'), 'oom_kill')
      return { limitMiB, peakMiB, timesAtLimit: Number(read('memory.failcnt')), oomKills }
    }
    const events = read('memory.events')
    return {
      limitMiB,
      peakMiB: mebibytes(read('memory.peak')),
      timesAtLimit: count(events, 'max'),
      oomKills: count(events, 'oom_kill'),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A process that has just ended is still counted for a moment.
    for (let tries = 50; ; tries--) {
      try {
        rmdirSync(this.#path)
        return
      } catch (error) {
        if (tries === 0) throw error
      }
      await sleep(100)
    }
  }
}

const mebibytes = (text: string): number => Math.round(Number(text) / MIB)

function count(text: string, key: string): number {
  return Number(new RegExp(`^${key} (\\d+)$`, 'm').exec(text)?.[1] ?? 0)
}
