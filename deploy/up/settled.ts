import { setTimeout as sleep } from 'node:timers/promises'
import type { ApiClient } from '#controller/api-client/index.ts'
import type { FunctionView } from '#shared/schemas/api.ts'

const WAIT_MS = 60_000
const POLL_MS = 100

/** Waits until every function of an online node serves or has failed; what is still on its way after a minute stays so. */
export async function waitForFunctions(client: ApiClient, signal: AbortSignal): Promise<void> {
  const deadlineMs = Date.now() + WAIT_MS
  while (Date.now() < deadlineMs) {
    const nodes = await client.nodes(signal)
    const functions = await client.functions(signal)
    if (nodes.some(({ online }) => online) && functions.every(isSettled)) return
    await sleep(POLL_MS, undefined, { signal })
  }
}

function isSettled({ nodes }: FunctionView): boolean {
  return nodes.every(({ state }) => ['ready', 'failed', 'offline'].includes(state))
}
