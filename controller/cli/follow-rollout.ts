import { setTimeout as sleep } from 'node:timers/promises'
import type { ApiClient } from '#controller/api-client/index.ts'
import type { Rollout } from '#shared/schemas/api.ts'
import { Fault } from '#shared/fault.ts'
import type { CliContext } from './context.ts'
import { ProgressBlock } from './output.ts'
import { rolloutLines, rolloutSummary } from './rollout-view.ts'

const REDRAW_MS = 1_000
const RECONNECTS_MAX = 30
const RECONNECT_MS = 1_000

/**
 * Shows a rollout until it ends, or until only offline nodes are missing. A controller that restarts meanwhile is asked again.
 *
 * @param quiet - Shows nothing, for `--json`.
 */
export async function followRollout(
  context: CliContext,
  client: ApiClient,
  begun: Rollout,
  quiet: boolean,
): Promise<Rollout> {
  const { out, signal, nowMs } = context
  const block = new ProgressBlock(out)
  let last = begun
  const show = () => {
    if (!quiet) block.show(rolloutLines(out, last, out.tty ? nowMs() : undefined))
  }
  // Between snapshots only the ages change.
  const timer = out.tty && !quiet ? setInterval(show, REDRAW_MS) : undefined
  try {
    show()
    for await (const snapshot of snapshots(client, begun, signal)) {
      last = snapshot
      show()
    }
  } finally {
    clearInterval(timer)
  }
  if (!quiet) out.write(`${rolloutSummary(out, last, nowMs())}\n`)
  return last
}

async function* snapshots(
  client: ApiClient,
  begun: Rollout,
  signal: AbortSignal,
): AsyncGenerator<Rollout, void> {
  let last = begun
  for (let failures = 0; ;) {
    try {
      for await (const snapshot of client.watchRollout(begun.id, signal)) {
        failures = 0
        last = snapshot
        yield snapshot
      }
      if (last.state !== 'rolling') return
      throw new Fault('CONTROLLER_UNREACHABLE', 'the connection ended before the rollout did')
    } catch (error) {
      if (!Fault.is(error, 'CONTROLLER_UNREACHABLE') || failures >= RECONNECTS_MAX) throw error
      failures += 1
      await sleep(RECONNECT_MS, undefined, { signal })
    }
  }
}
