import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { InvokeRouter } from '#agent/invoke/index.ts'
import type { Lane, LaneSettings } from '#agent/invoke/index.ts'
import { CapturedLog } from './captured-log.ts'
import { LANE_SETTINGS } from './invoke-scope.ts'
import { RunnerProcess } from './runner-process.ts'

const BODY_BYTES_MAX = 512 * 1024 * 1024

/** The way of a call from one end to the other: fronts on free ports of 127.0.0.1, the router, and real runners as processes. */
export class ServedNode implements AsyncDisposable {
  readonly router: InvokeRouter
  readonly log: CapturedLog
  readonly http: HttpProxy
  readonly coap: CoapProxy
  readonly grpc: GrpcProxy
  readonly #stack: AsyncDisposableStack

  private constructor(
    router: InvokeRouter,
    log: CapturedLog,
    fronts: { http: HttpProxy; coap: CoapProxy; grpc: GrpcProxy },
    stack: AsyncDisposableStack,
  ) {
    this.router = router
    this.log = log
    this.http = fronts.http
    this.coap = fronts.coap
    this.grpc = fronts.grpc
    this.#stack = stack
  }

  /** @param callsMax - places for calls in work */
  static async start(callsMax?: number): Promise<ServedNode> {
    await using stack = new AsyncDisposableStack()
    const log = new CapturedLog()
    const router = new InvokeRouter({ log, ...(callsMax === undefined ? {} : { callsMax }) })
    stack.defer(() => router.close(0))
    const options = { host: '127.0.0.1', port: 0, invoker: router, log }
    const bodyBytesMax = BODY_BYTES_MAX
    const http = stack.use(await HttpProxy.listen({ ...options, bodyBytesMax }))
    const coap = stack.use(await CoapProxy.listen({ ...options, bodyBytesMax: 65_536 }))
    const grpc = stack.use(await GrpcProxy.listen({ ...options, bodyBytesMax }))
    return new ServedNode(router, log, { http, coap, grpc }, stack.move())
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.http.port}${path}`
  }

  /** Deploys a function of the Node runtime. @returns its handlers, in the order in which calls prefer them when idle */
  async deploy(
    fn: string,
    source: string,
    settings: Partial<LaneSettings> = {},
    handlers = 1,
  ): Promise<{ readonly lane: Lane; readonly runners: readonly RunnerProcess[] }> {
    const all = { ...LANE_SETTINGS, bodyBytesMax: BODY_BYTES_MAX, ...settings }
    const lane = this.router.ensure(fn, all)
    const starting = Array.from({ length: handlers }, () => RunnerProcess.start(source))
    const runners = await Promise.all(starting)
    for (const runner of runners) {
      this.#stack.use(runner)
      lane.attach(runner.link, 'r1-0a1b2c3d')
    }
    return { lane, runners }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}
