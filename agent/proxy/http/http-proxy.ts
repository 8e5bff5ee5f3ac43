import {
  type IncomingMessage,
  METHODS,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify, { type FastifyInstance } from 'fastify'
import type { Invoker } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { listenDualStack, listenFault } from '../listen-fault.ts'
import type { ProxyLog } from '../log.ts'
import { requestIdOf } from '../request-id.ts'
import { answerFault, faultJson } from './answer-fault.ts'
import { type CallContext, HttpCall } from './call.ts'

/** For answers that are written but not yet sent when the proxy closes. */
const FLUSH_MS = 250

export interface HttpProxyOptions {
  /** `::` is dual-stack. */
  readonly host: string
  /** 0: any free one, see `port`. */
  readonly port: number
  readonly invoker: Invoker
  /** Bound of a request's body. */
  readonly bodyBytesMax: number
  readonly log: ProxyLog
  /** Default 10,000; connections above it are closed at once. */
  readonly connectionsMax?: number
  /** Request line and header together, default 16 KiB; 431 above. */
  readonly headerBytesMax?: number
  /** Default 128; 400 above. */
  readonly headerFieldsMax?: number
  /** For the header to arrive, default 10,000; 408 above. */
  readonly headerTimeoutMs?: number
  /** For the whole request to arrive, default 300,000; 408 above. */
  readonly requestTimeoutMs?: number
  /** An idle connection is kept this long, default 75,000. */
  readonly idleTimeoutMs?: number
}

/** HTTP/1.1 in front of the functions: `/<function>[/rest][?query]`, any method, any body. */
export class HttpProxy {
  readonly #app: FastifyInstance
  readonly #context: CallContext
  readonly #calls = new Map<Socket, Set<HttpCall>>()
  #closing: Promise<void> | undefined
  #drained: (() => void) | undefined
  #inFlight = 0

  private constructor(options: HttpProxyOptions) {
    this.#context = {
      invoker: options.invoker,
      bodyBytesMax: options.bodyBytesMax,
      headerFieldsMax: options.headerFieldsMax ?? 128,
      log: options.log,
      onEnd: (call) => this.#onEnd(call),
    }
    this.#app = fastify({
      logger: false,
      // Node checks the two timeouts of a request only this often; its default of 30 s would be the real limit.
      http: {
        maxHeaderSize: options.headerBytesMax ?? 16 * 1024,
        headersTimeout: options.headerTimeoutMs ?? 10_000,
        connectionsCheckingInterval: Math.min(options.headerTimeoutMs ?? 10_000, 5_000),
        insecureHTTPParser: false,
      },
      requestTimeout: options.requestTimeoutMs ?? 300_000,
      keepAliveTimeout: options.idleTimeoutMs ?? 75_000,
      return503OnClosing: false,
      exposeHeadRoutes: false,
      clientErrorHandler: answerBrokenRequest,
      frameworkErrors: (error, request, reply) => {
        // The one there is for us: a path with a broken percent-encoding. It never reaches a hook.
        reply.hijack()
        answerFault(
          reply.raw,
          new Fault('REQUEST_INVALID', error.message),
          requestIdOf(header(request.raw, 'x-request-id')),
        )
      },
      routerOptions: { maxParamLength: 64 * 1024 },
    })
    const { server } = this.#app
    server.maxConnections = options.connectionsMax ?? 10_000
    // One more than allowed: above it Node drops fields without a word, and we want to refuse.
    server.maxHeadersCount = this.#context.headerFieldsMax + 1
    server.on('connection', (socket) => this.#onConnection(socket))
    server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      this.#serve(request, response, true)
    })
    this.#route()
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async listen(options: HttpProxyOptions): Promise<HttpProxy> {
    const proxy = new HttpProxy(options)
    const { host, port } = options
    try {
      await listenDualStack(host, (address) => proxy.#app.listen({ host: address, port }))
    } catch (error) {
      await proxy.#app.close()
      throw listenFault(error, { what: 'HTTP', host, port, setting: 'SHOAL_HTTP_PORT' })
    }
    return proxy
  }

  get port(): number {
    const address = this.#server.address()
    return address !== null && typeof address === 'object' ? address.port : 0
  }

  /** Calls that have begun and not ended. */
  get inFlight(): number {
    return this.#inFlight
  }

  /**
   * Refuses new calls with `SHUTTING_DOWN`, lets those in flight finish for up to `drainMs`, then cancels them and closes
   * every connection. Idempotent.
   */
  close(drainMs = 0): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  get #server(): Server {
    return this.#app.server
  }

  #route(): void {
    for (const method of METHODS) {
      if (method === 'CONNECT' || this.#app.supportedMethods.includes(method)) continue
      this.#app.addHttpMethod(method, { hasBody: true })
    }
    // Hijacked before fastify looks at the body: bodies are the function's business, whatever their type.
    this.#app.addHook('onRequest', (request, reply) => {
      reply.hijack()
      this.#serve(request.raw, reply.raw, false)
    })
    this.#app.all('/*', () => undefined)
  }

  #onConnection(socket: Socket): void {
    const calls = new Set<HttpCall>()
    this.#calls.set(socket, calls)
    socket.once('close', () => {
      this.#calls.delete(socket)
      for (const call of calls) call.abandon()
    })
  }

  #serve(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const call = new HttpCall(this.#context, request, response, expectsContinue)
    this.#calls.get(request.socket)?.add(call)
    this.#inFlight++
    if (this.#closing !== undefined)
      call.refuse(new Fault('SHUTTING_DOWN', 'this node is stopping'))
    else call.start()
  }

  #onEnd(call: HttpCall): void {
    this.#calls.get(call.request.socket)?.delete(call)
    this.#inFlight--
    if (this.#inFlight === 0) this.#drained?.()
  }

  async #close(drainMs: number): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
    })
    // Told to the caller with the last answer of its connection, so that it does not send more.
    for (const calls of this.#calls.values()) [...calls].at(-1)?.closeAfterAnswer()
    const idle = setInterval(() => this.#server.closeIdleConnections(), 20)
    this.#server.closeIdleConnections()
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve
      if (this.#inFlight === 0) resolve()
    })
    await Promise.race([drained, sleep(drainMs, undefined, { ref: false })])
    const fault = new Fault('SHUTTING_DOWN', 'this node is stopping')
    for (const calls of this.#calls.values()) {
      for (const call of calls) call.cancel(fault)
    }
    // An answer that was just written is still on its way out: connections get a moment to end by themselves.
    await Promise.race([stopped, sleep(FLUSH_MS, undefined, { ref: false })])
    clearInterval(idle)
    this.#server.closeAllConnections()
    await stopped
    await this.#app.close()
  }
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name]
  return typeof value === 'string' ? value : undefined
}

/** What the HTTP parser refuses: 400, 408 and 431 in the shape of every other fault, and the end of the connection. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? 431
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? 408
        : 400
  const body = faultJson(
    new Fault('REQUEST_INVALID', `not a valid HTTP request: ${error.code ?? error.message}`),
  )
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json\r\n`
  const length = `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n`
  if (socket.writable) socket.end(head + length + body)
  else socket.destroy()
}
