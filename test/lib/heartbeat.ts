import type { FunctionReport, Heartbeat } from '#shared/schemas/health.ts'
import { stateDigest } from '#shared/state-digest.ts'

/** A heartbeat of an idle node, with what a test wants different. */
export function heartbeatOf(node: string, different: Partial<Heartbeat> = {}): Heartbeat {
  return {
    node,
    boot: 'boot-1',
    seq: 1,
    sentAtMs: 0,
    uptimeMs: 0,
    generation: 0,
    stateDigest: stateDigest([]),
    functions: [],
    host: {
      cpuShare: 0,
      load1: 0,
      memoryMiB: 1024,
      memoryFreeMiB: 512,
      agentRssMiB: 60,
      diskMiB: 4096,
      diskFreeMiB: 2048,
    },
    ...different,
  }
}

/** A report of one ready handler, with what a test wants different. */
export function reportOf(
  fn: string,
  release: string,
  different: Partial<FunctionReport> = {},
): FunctionReport {
  return {
    fn,
    release,
    serving: [release],
    state: 'ready',
    handlers: { ready: 1, starting: 0, restarts: 0 },
    calls: {
      ok: 0,
      failed: 0,
      refused: 0,
      timedOut: 0,
      cancelled: 0,
      asyncAccepted: 0,
      asyncDone: 0,
      asyncFailed: 0,
      inFlight: 0,
      queued: 0,
    },
    ...different,
  }
}
