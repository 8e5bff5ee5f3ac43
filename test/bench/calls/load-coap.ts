import { childScope } from '#test/process.ts'
import type { LoadOptions, Round } from './load.ts'

/**
 * Confirmable POSTs to `path` from 8 UDP ports that share `inFlight` outstanding requests. The generator is a process of its own,
 * `load-coap-child.ts`, so that the caller's own work does not slow it down.
 */
export async function loadCoap(options: LoadOptions & { readonly path: string }): Promise<Round> {
  const { port, path, payload, inFlight, durationMs } = options
  const script = new URL('load-coap-child.ts', import.meta.url).pathname
  const order = { port, path, payload: payload.toString('base64'), inFlight, durationMs }
  await using child = await childScope({
    script,
    args: [JSON.stringify(order)],
    ready: (line) => line.startsWith('{"perSecond"'),
    readyTimeoutMs: durationMs + 30_000,
  })
  const round: Round = JSON.parse(child.readyLine)
  return round
}
