import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import type { LoadedConfig } from '#agent/config/index.ts'
import { OwnFronts, type FrontsOptions } from '#agent/fronts/index.ts'
import { AdminServer } from '#agent/health/index.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'

/** What the configuration says of the fronts. */
export function frontSettings(
  config: LoadedConfig,
): Pick<FrontsOptions, 'host' | 'ports' | 'bodyBytesMax'> {
  const { bindHost: host, httpPort: http, coapPort: coap, grpcPort: grpc, bodyBytesMax } = config
  return { host, ports: { http, coap, grpc }, bodyBytesMax }
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
  stack.use(await OwnFronts.open({ ...frontSettings(config), invoker, log }))
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
