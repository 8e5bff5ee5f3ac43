import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Registry } from 'prom-client'
import { Fault } from '#shared/fault.ts'
import type { HealthLog } from './log.ts'
import type { LoopLag } from './loop-monitor.ts'
import type { ReadinessView } from './readiness.ts'

/** An event loop that stood still for so long in the last seconds is not healthy. */
const LAG_MS_MAX = 5_000

export interface AdminServerOptions {
  readonly host: string
  /** 0 takes a free one; -1 is not for here: do not start it. */
  readonly port: number
  readonly readiness: () => ReadinessView
  readonly loopLag: () => LoopLag
  readonly metrics: Registry
  readonly log: HealthLog
}

/** `/healthz`, `/readyz` and `/metrics` on a local port of their own. */
export class AdminServer implements AsyncDisposable {
  readonly #options: AdminServerOptions
  readonly #server: Server

  private constructor(options: AdminServerOptions) {
    this.#options = options
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        options.log.warn({ err: error }, 'admin request failed')
        send(response, 500, { code: 'INTERNAL', message: 'see the log' })
      })
    })
  }

  /** @throws Fault `PORT_TAKEN`, `CONFIG_INVALID` */
  static async listen(options: AdminServerOptions): Promise<AdminServer> {
    const admin = new AdminServer(options)
    admin.#server.listen(options.port, options.host)
    try {
      await once(admin.#server, 'listening')
    } catch (error) {
      throw listenFault(error, options)
    }
    return admin
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      send(response, 405, { code: 'METHOD_NOT_ALLOWED', message: 'only GET' })
      return
    }
    const path = request.url?.split('?', 1)[0]
    if (path === '/healthz') this.#health(response)
    else if (path === '/readyz') this.#readiness(response)
    else if (path === '/metrics') {
      const { metrics } = this.#options
      const text = await metrics.metrics()
      response.writeHead(200, { 'content-type': metrics.contentType }).end(text)
    } else {
      send(response, 404, { code: 'NOT_FOUND', message: '/healthz, /readyz, /metrics' })
    }
  }

  #health(response: ServerResponse): void {
    const { maxMs } = this.#options.loopLag()
    const healthy = maxMs < LAG_MS_MAX
    send(response, healthy ? 200 : 503, {
      status: healthy ? 'ok' : 'event loop blocked',
      uptimeMs: Math.round(process.uptime() * 1000),
      eventLoopLagMs: Math.round(maxMs),
    })
  }

  #readiness(response: ServerResponse): void {
    const { reasons, failing, functions } = this.#options.readiness()
    const ready = reasons.length === 0
    send(response, ready ? 200 : 503, {
      status: ready ? 'ready' : 'not ready',
      functions,
      reasons,
      failing,
    })
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  response
    .writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    .end(`${JSON.stringify(body)}\n`)
}

function listenFault(error: unknown, { host, port }: AdminServerOptions): Fault {
  const code = error instanceof Error && 'code' in error ? error.code : ''
  if (code === 'EADDRINUSE') {
    return new Fault(
      'PORT_TAKEN',
      `port ${port} for the admin server is taken by another program - set SHOAL_ADMIN_PORT to a free port, or to -1 for none`,
      { port, host, setting: 'SHOAL_ADMIN_PORT' },
      { cause: error },
    )
  }
  const text = error instanceof Error ? error.message : String(error)
  return new Fault(
    'CONFIG_INVALID',
    `the admin server cannot listen on ${host} port ${port} (${text}) - see SHOAL_ADMIN_HOST and SHOAL_ADMIN_PORT`,
    { port, host, setting: 'SHOAL_ADMIN_PORT' },
    { cause: error },
  )
}
