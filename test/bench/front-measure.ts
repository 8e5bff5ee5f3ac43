import { readFile } from 'node:fs/promises'
import { type ChildScope, childScope } from '#test/process.ts'
import type { Load } from './front-load.ts'

export interface WrkOptions {
  readonly seconds: number
  readonly connections: number
  readonly bytes: number
}

/** POSTs to `url` with wrk and one thread: it takes less of the machine from the contestants than a generator in JavaScript. */
export async function wrkLoad(url: string, options: WrkOptions): Promise<Load> {
  const script = new URL('front-wrk.lua', import.meta.url).pathname
  const { seconds, connections, bytes } = options
  const how = ['-t1', `-c${connections}`, `-d${Math.ceil(seconds)}s`, '-s', script]
  const args = [...how, url, '--', String(bytes)]
  await using child = await childScope({ command: 'wrk', args, ready: isResult })
  const load: Load = JSON.parse(child.readyLine)
  return load
}

const isResult = (line: string): boolean => line.startsWith('{"callsPerSecond"')

/** Resident memory of a server. */
export async function rssMiBOf({ pid }: ChildScope): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
}

/** Processor time a server has used so far: steadier than calls per second on a machine that others use too. */
export async function cpuMsOf({ pid }: ChildScope): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10 // In ticks of 1/100 s.
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}
