import swagger from '@fastify/swagger'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { LogController, type FastifyBaseLogger, type FastifyInstance } from 'fastify'
import { Fault } from '#shared/fault.ts'
import { requireToken } from './auth.ts'
import { answerFaults } from './errors.ts'
import { EventStream } from './event-stream.ts'
import { functionsRoutes } from './functions-routes.ts'
import { invokeRoutes } from './invoke-routes.ts'
import { logsRoutes } from './logs-routes.ts'
import { createMetrics, measureRequests } from './metrics.ts'
import { nodesRoutes } from './nodes-routes.ts'
import { releasesRoutes } from './releases-routes.ts'
import { rolloutsRoutes } from './rollouts-routes.ts'
import type { ApiServices } from './services.ts'
import { systemRoutes } from './system-routes.ts'
import { compileValidator } from './validation.ts'

const JSON_BODY_BYTES_MAX = 1024 * 1024
/** A name of 259 characters, each percent-encoded. */
const PARAM_CHARS_MAX = 800
const REQUEST_TIMEOUT_MS = 600_000
const CLOSE_WITHIN_MS = 3_000

export interface ApiOptions {
  readonly services: () => ApiServices
  readonly token: string
  readonly log: FastifyBaseLogger
}

/** The API without a port: routes, checks, errors. Tests call it by `inject`. */
export async function buildApi({ services, token, log }: ApiOptions): Promise<FastifyInstance> {
  const app = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: JSON_BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: PARAM_CHARS_MAX, ignoreTrailingSlash: false },
    exposeHeadRoutes: false,
  }).withTypeProvider<TypeBoxTypeProvider>()
  app.setValidatorCompiler(compileValidator)
  // Answers are made from the same types as the schemas: as they are, nothing dropped or bent.
  app.setSerializerCompiler(() => (value) => JSON.stringify(value))
  answerFaults(app)
  requireToken(app, token)
  const metrics = createMetrics(services)
  measureRequests(app, metrics)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Shoal controller',
        version: '1',
        description:
          'Names with a slash are percent-encoded in one path segment. Errors are {code, message, retry, details?} with the code’s status.',
      },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
  })
  const stopping = new AbortController()
  app.addHook('preClose', (done) => {
    stopping.abort()
    done()
  })
  const options = { services, stopping: stopping.signal }
  for (const routes of [
    functionsRoutes,
    releasesRoutes,
    rolloutsRoutes,
    invokeRoutes,
    logsRoutes,
    nodesRoutes,
  ]) {
    await app.register(routes, options)
  }
  await app.register(systemRoutes, { ...options, metrics })
  return app
}

export interface ApiServer extends AsyncDisposable {
  readonly port: number
  /** `http://127.0.0.1:7420` */
  readonly url: string
  /** Streams end, requests in flight are finished. */
  close(): Promise<void>
}

/**
 * Serves the API and its event stream.
 *
 * @throws Fault `PORT_TAKEN`, naming the setting
 */
export async function startApi(
  options: ApiOptions & { readonly host: string; readonly port: number },
): Promise<ApiServer> {
  const { host, port, services, token } = options
  const app = await buildApi(options)
  const stream = new EventStream({ server: app.server, token, events: services().events })
  try {
    await app.listen({ host, port })
  } catch (error) {
    stream.close()
    await app.close()
    throw listenFault(error, host, port)
  }
  const address = app.server.address()
  const actual = typeof address === 'object' && address !== null ? address.port : port
  const close = async () => {
    stream.close()
    // A client that does not read its answer must not keep this process.
    const timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_WITHIN_MS)
    await app.close()
    clearTimeout(timer)
  }
  const shownHost = host === '::' || host === '0.0.0.0' ? '127.0.0.1' : host
  return {
    port: actual,
    url: `http://${shownHost.includes(':') ? `[${shownHost}]` : shownHost}:${actual}`,
    close,
    [Symbol.asyncDispose]: close,
  }
}

function listenFault(error: unknown, host: string, port: number): Fault {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  const where = `${host}:${port}`
  if (code === 'EADDRINUSE') {
    return new Fault(
      'PORT_TAKEN',
      `${where} is taken: set SHOAL_API_PORT to another port`,
      { setting: 'SHOAL_API_PORT', port },
      { cause: error },
    )
  }
  if (code === 'EADDRNOTAVAIL' || code === 'EACCES' || code === 'ENOTFOUND') {
    return new Fault(
      'CONFIG_INVALID',
      `cannot listen on ${where} (${code}): set SHOAL_API_HOST or SHOAL_API_PORT`,
      { setting: 'SHOAL_API_HOST' },
      { cause: error },
    )
  }
  return Fault.from(error)
}
