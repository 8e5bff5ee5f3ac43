import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
import { HttpProxy, type HttpProxyOptions } from '#agent/proxy/http/index.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import type { Lane, LaneSettings } from '#agent/invoke/index.ts'
import { CapturedLog } from './captured-log.ts'
import { handlerScope, type HandlerScope } from './handler-scope.ts'
import { LANE_SETTINGS } from './invoke-scope.ts'

const BODY_BYTES_MAX = 512 * 1024 * 1024

export interface ServedNodeOptions extends Pick<
  Partial<HttpProxyOptions>,
  'host' | 'probeAfterMs'
> {
  /** Places for calls in work. */
  readonly callsMax?: number
}

/** The way of a call from one end to the other: fronts on free ports, the router, and handlers in containers. */
export class ServedNode implements AsyncDisposable {
  readonly router: InvokeRouter
  readonly log: CapturedLog
  readonly http: HttpProxy
  readonly coap: CoapProxy
  readonly grpc: GrpcProxy
  readonly #handlers: HandlerScope
  readonly #stack: AsyncDisposableStack

  private constructor(
    router: InvokeRouter,
    handlers: HandlerScope,
    log: CapturedLog,
    fronts: { http: HttpProxy; coap: CoapProxy; grpc: GrpcProxy },
    stack: AsyncDisposableStack,
  ) {
    this.router = router
    this.#handlers = handlers
    this.log = log
    this.http = fronts.http
    this.coap = fronts.coap
    this.grpc = fronts.grpc
    this.#stack = stack
  }

  static async start({ callsMax, ...httpOptions }: ServedNodeOptions = {}): Promise<ServedNode> {
    await using stack = new AsyncDisposableStack()
    const handlers = stack.use(await handlerScope('docker'))
    const log = new CapturedLog()
    const router = new InvokeRouter({ log, ...(callsMax === undefined ? {} : { callsMax }) })
    stack.defer(() => router.close(0))
    const options = { host: '127.0.0.1', port: 0, invoker: router, log }
    const bodyBytesMax = BODY_BYTES_MAX
    const http = stack.use(await HttpProxy.listen({ ...options, bodyBytesMax, ...httpOptions }))
    const coap = stack.use(await CoapProxy.listen({ ...options, bodyBytesMax: 65_536 }))
    const grpc = stack.use(await GrpcProxy.listen({ ...options, bodyBytesMax }))
    return new ServedNode(router, handlers, log, { http, coap, grpc }, stack.move())
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.http.port}${path}`
  }

  /** Deploys a function of the Node runtime, with so many handlers. */
  async deploy(
    fn: string,
    source: string,
    settings: Partial<LaneSettings> = {},
    count = 1,
  ): Promise<{ readonly lane: Lane }> {
    const all = { ...LANE_SETTINGS, bodyBytesMax: BODY_BYTES_MAX, ...settings }
    const { concurrency, timeoutMs } = all
    const lane = this.router.ensure(fn, all)
    const bundle = await this.#handlers.bundle({ 'index.js': source })
    const starting = Array.from({ length: count }, async () => {
      const handler = await this.#handlers.handler('nodejs', bundle, { fn, concurrency, timeoutMs })
      await handler.start()
      return handler
    })
    for (const handler of await Promise.all(starting)) handler.attach(lane)
    return { lane }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}
