import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** A Node that does nothing, from its start to its end, on the machine for which the bounds of tests are meant. */
const BARE_START_MS = 60

/**
 * Resolves to how many times slower than that machine this one is at the moment, at least 1: the factor for bounds of what starts
 * processes. The better of two starts counts.
 */
export async function machinePace(): Promise<number> {
  const bareMs = Math.min(await bareStartMs(), await bareStartMs())
  return Math.max(1, bareMs / BARE_START_MS)
}

async function bareStartMs(): Promise<number> {
  const startedAtMs = performance.now()
  const child = spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' })
  await once(child, 'exit')
  return performance.now() - startedAtMs
}
