import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import type { LoadedConfig } from '#agent/config/index.ts'
import { AdminServer } from '#agent/health/index.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'

/** One of the fronts that devices call. */
export interface Door extends AsyncDisposable {
  readonly name: 'http' | 'coap' | 'grpc'
  readonly port: number
  close(drainMs?: number): Promise<void>
}

type DoorOptions = Parameters<typeof HttpProxy.listen>[0]

/**
 * Opens those fronts that are not off.
 *
 * @param opened - gets each as soon as it is open, so that a later one's failure does not leave it behind
 * @throws Fault `PORT_TAKEN`, `CONFIG_INVALID`
 */
export async function openDoors(
  config: LoadedConfig,
  { invoker, log }: { readonly invoker: InvokeRouter; readonly log: Logger },
  opened: (door: Door) => void,
): Promise<void> {
  const fronts = [
    { name: 'http', port: config.httpPort, listen: (o: DoorOptions) => HttpProxy.listen(o) },
    { name: 'coap', port: config.coapPort, listen: (o: DoorOptions) => CoapProxy.listen(o) },
    { name: 'grpc', port: config.grpcPort, listen: (o: DoorOptions) => GrpcProxy.listen(o) },
  ] as const
  for (const { name, port, listen } of fronts) {
    if (port < 0) continue
    const { bindHost: host, bodyBytesMax } = config
    const child = log.child({ [LOG_KEYS.part]: name })
    const front = await listen({ host, port, invoker, bodyBytesMax, log: child })
    opened({
      name,
      port: front.port,
      close: (drainMs) => front.close(drainMs),
      [Symbol.asyncDispose]: () => front.close(),
    })
  }
}

/**
 * Opens all ports and closes them again: an agent that could not serve must not use up a join token first.
 *
 * @throws Fault `PORT_TAKEN`, `CONFIG_INVALID`
 */
export async function tryDoors(config: LoadedConfig, log: Logger): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const invoker = new InvokeRouter({ log, callsMax: 1 })
  stack.defer(() => invoker.close(0))
  await openDoors(config, { invoker, log }, (door) => void stack.use(door))
  if (config.adminPort < 0) return
  stack.use(
    await AdminServer.listen({
      host: config.adminHost,
      port: config.adminPort,
      readiness: () => ({ reasons: [{ state: 'starting' }], failing: [], functions: 0 }),
      loopLag: () => ({ p99Ms: 0, maxMs: 0 }),
      metrics: new Registry(),
      log,
    }),
  )
}
