import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { memoryOf } from '#test/process-facts.ts'
import type { ProductScope } from '#test/product.ts'

export const PARTS = ['agent', 'controller', 'nats'] as const

/** One look at everything. A part's names: `agent MiB`, `agent descriptors`. */
export interface Sample {
  readonly atMs: number
  readonly values: Readonly<Record<string, number>>
}

/** @param calls - so many calls have ended until now */
export async function sample(product: ProductScope, calls: number): Promise<Sample> {
  const values: Record<string, number> = { calls }
  for (const part of PARTS) {
    const pid = await product.pid(part)
    values[`${part} MiB`] = memoryOf(pid).rssMiB
    values[`${part} descriptors`] = (await readdir(`/proc/${pid}/fd`)).length
  }
  values['containers'] = (await product.containers()).length
  for (const folder of ['agent', 'controller', 'nats', 'log']) {
    values[`disk ${folder} MiB`] = mebibytes(await bytesUnder(join(product.data, folder)))
  }
  values['disk MiB'] = mebibytes(await bytesUnder(product.data))
  const admin = `http://127.0.0.1:${product.ports.admin}/metrics`
  const metrics = await (await fetch(admin)).text()
  const lag = /^shoal_process_event_loop_lag_seconds\{quantile="0\.99"\} (\S+)$/m.exec(metrics)?.[1]
  values['agent loop lag p99 ms'] = Math.round(Number(lag) * 10_000) / 10
  const heap = /^shoal_process_heap_bytes (\S+)$/m.exec(metrics)?.[1]
  values['agent heap MiB'] = mebibytes(Number(heap))
  return { atMs: performance.now(), values }
}

/** What the files there take on the disk, those that go while it looks left out; 0 for no folder. */
async function bytesUnder(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  let bytes = 0
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) bytes += await bytesUnder(path)
    else if (entry.isFile()) {
      const found = await stat(path).catch(() => undefined)
      // Deployed bundles are linked into the folders of their handlers: each link counts its share.
      bytes += found === undefined ? 0 : (found.blocks * 512) / found.nlink
    }
  }
  return bytes
}

function mebibytes(bytes: number): number {
  return Math.round((bytes / 2 ** 20) * 1_000) / 1_000
}
