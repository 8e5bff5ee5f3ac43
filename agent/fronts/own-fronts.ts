import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { LOG_KEYS } from '#shared/log-keys.ts'
import type { FrontPorts, Fronts, FrontsOptions } from './model.ts'

interface Proxy {
  readonly port: number
  close(drainMs?: number): Promise<void>
}

/** The fronts in this process. */
export class OwnFronts implements Fronts, AsyncDisposable {
  readonly ports: FrontPorts
  readonly blocked = undefined
  readonly pids = []
  readonly #proxies: readonly Proxy[]

  private constructor(ports: FrontPorts, proxies: readonly Proxy[]) {
    this.ports = ports
    this.#proxies = proxies
  }

  /**
   * @param workers - so many processes listen on these ports, and each has its part of the limits
   * @throws Fault `PORT_TAKEN`, `CONFIG_INVALID`
   */
  static async open(options: FrontsOptions, workers = 1): Promise<OwnFronts> {
    const { host, invoker, bodyBytesMax, log } = options
    const proxies: Proxy[] = []
    const open = async (
      name: keyof FrontPorts,
      listen: (common: Common) => Promise<Proxy>,
    ): Promise<number> => {
      const port = options.ports[name]
      if (port < 0) return 0
      const own = log.child({ [LOG_KEYS.part]: name })
      const reusePort = workers > 1
      const opened = await listen({ host, port, invoker, bodyBytesMax, log: own, reusePort })
      proxies.push(opened)
      return opened.port
    }
    // The fronts know their limits, and lower them to what their process has: only how many share them is said here.
    const processes = workers
    try {
      const http = await open('http', (common) => HttpProxy.listen({ ...common, processes }))
      const coap = await open('coap', (common) => CoapProxy.listen({ ...common, processes }))
      const grpc = await open('grpc', (common) =>
        GrpcProxy.listen({ ...common, server: { processes } }),
      )
      return new OwnFronts({ http, coap, grpc }, proxies)
    } catch (error) {
      await Promise.all(proxies.map((proxy) => proxy.close(0)))
      throw error
    }
  }

  async close(drainMs = 0): Promise<void> {
    await Promise.all(this.#proxies.map((proxy) => proxy.close(drainMs)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

interface Common {
  readonly host: string
  readonly port: number
  readonly invoker: FrontsOptions['invoker']
  readonly bodyBytesMax: number
  readonly log: FrontsOptions['log']
  readonly reusePort: boolean
}
