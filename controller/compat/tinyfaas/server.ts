import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { ApiClient } from '#controller/api-client/index.ts'
import { Fault } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import { timeLimit } from '#shared/time-limit.ts'
import { Slots } from '../../slots.ts'
import { apiFunctions } from '../api-functions.ts'
import type { CompatLog } from '../compat-log.ts'
import type { CompatDeployment, FunctionsPort } from '../functions-port.ts'
import { logText } from './log-text.ts'
import { isTinyFaas, parseDelete, parseUpload, parseUploadUrl, uploadAnswer } from './requests.ts'

/** The zip travels as base64 in JSON, some of it escaped perhaps. */
const BODY_BYTES_MAX = Math.ceil(LIMITS.sourceBytesMax * 1.4) + 64 * 1024
/** Uploads are held in memory; the others wait with their bodies unread. tinyFaaS deploys one at a time and refuses none. */
const UPLOADS_AT_ONCE_MAX = 4
const UPLOADS_WAITING_MAX = 256
const DEPLOY_TIMEOUT_MS = 1_200_000

export interface TinyFaasOptions {
  readonly client: ApiClient
  readonly host: string
  readonly port: number
  readonly log: CompatLog
}

export interface TinyFaasServer extends AsyncDisposable {
  readonly port: number
}

interface Answer {
  readonly status: number
  readonly body?: string
}

type Handler = (request: IncomingMessage, signal: AbortSignal) => Promise<Answer>

interface Route {
  readonly method: 'GET' | 'POST'
  readonly handle: Handler
}

/**
 * tinyFaaS's management API: `/upload /uploadURL /delete /list /wipe /logs`. Bodies are JSON whatever their content type says,
 * errors have an empty body, and the wrong method is a 400. Web pages are refused (403). It shows and removes only functions that were uploaded through it.
 *
 * @throws Fault `PORT_TAKEN`
 */
export async function startTinyFaas(options: TinyFaasOptions): Promise<TinyFaasServer> {
  const { client, host, port, log } = options
  const onBuildLine = (fn: string, line: string) => log.info({ fn, line }, 'build')
  const functions = apiFunctions({ client, owns: isTinyFaas, onBuildLine })
  const routes = tinyFaasRoutes(functions)
  const closing = new AbortController()
  const server = createServer((request, response) => {
    void serve(request, response, routes, closing.signal, log)
  })
  // An upload answers when the function does; a build may take its time.
  server.requestTimeout = DEPLOY_TIMEOUT_MS
  await listen(server, host, port)
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    async [Symbol.asyncDispose]() {
      closing.abort()
      server.close()
      server.closeIdleConnections()
      if (server.listening) await once(server, 'close')
    },
  }
}

function tinyFaasRoutes(functions: FunctionsPort): Readonly<Record<string, Route>> {
  const uploads = new Slots(UPLOADS_AT_ONCE_MAX, UPLOADS_WAITING_MAX, 'uploads')
  const upload =
    (parse: typeof parseUpload): Handler =>
    (request, signal) =>
      uploads.run(async () => {
        const parsed = parse(await readBody(request))
        if ('bad' in parsed) return { status: 400 }
        return deploy(functions, parsed.ok(), signal)
      }, signal)
  return {
    '/upload': { method: 'POST', handle: upload(parseUpload) },
    '/uploadURL': { method: 'POST', handle: upload(parseUploadUrl) },
    '/delete': {
      method: 'POST',
      handle: async (request, signal) => {
        const parsed = parseDelete(await readBody(request))
        if ('bad' in parsed) return { status: 400 }
        await functions.remove(parsed.ok, signal)
        return { status: 200 }
      },
    },
    '/list': {
      method: 'GET',
      handle: async (_request, signal) => {
        const names = await functions.list(signal)
        return { status: 200, body: names.map((name) => `${name}\n`).join('') }
      },
    },
    '/wipe': {
      method: 'POST',
      handle: async (_request, signal) => {
        // What could not be removed is swallowed, as there.
        await functions.wipe(signal)
        return { status: 200 }
      },
    },
    '/logs': {
      method: 'GET',
      handle: async (request, signal) => ({
        status: 200,
        body: await collectLogs(functions, nameQuery(request), signal),
      }),
    },
  }
}

async function deploy(
  functions: FunctionsPort,
  deployment: CompatDeployment,
  signal: AbortSignal,
): Promise<Answer> {
  const limited = AbortSignal.any([signal, timeLimit(DEPLOY_TIMEOUT_MS)])
  const ports = await functions.deploy(deployment, limited)
  return { status: 200, body: uploadAnswer(deployment.name, ports) }
}

async function collectLogs(
  functions: FunctionsPort,
  name: string,
  signal: AbortSignal,
): Promise<string> {
  if (name !== '') return logText(name, await functions.logs(name, signal))
  let text = ''
  for (const each of await functions.list(signal)) {
    // One that cannot be asked now must not hide the others' lines.
    const lines = await functions.logs(each, signal).catch((error: unknown) => {
      if (signal.aborted) throw error
      return []
    })
    text += `${logText(each, lines)}\n`
  }
  return text
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  routes: Readonly<Record<string, Route>>,
  closing: AbortSignal,
  log: TinyFaasOptions['log'],
): Promise<void> {
  const gone = new AbortController()
  response.on('close', () => gone.abort())
  const path = pathOf(request)
  try {
    const answer = await route(request, path, routes, AbortSignal.any([gone.signal, closing]))
    send(response, answer)
  } catch (error) {
    const fault = Fault.from(error)
    if (!gone.signal.aborted) log.warn({ path, code: fault.code, err: fault }, 'compat call failed')
    send(response, { status: fault.code === 'BODY_TOO_LARGE' ? 413 : 500 })
  }
}

async function route(
  request: IncomingMessage,
  path: string,
  routes: Readonly<Record<string, Route>>,
  signal: AbortSignal,
): Promise<Answer> {
  if (fromBrowser(request) || !namesLoopback(request)) return { status: 403 }
  const found = Object.hasOwn(routes, path) ? routes[path] : undefined
  // The test suite of tinyFaaS asks for `/` until something answers.
  if (found === undefined) return { status: 404, body: '404 page not found\n' }
  if (request.method !== found.method) return { status: 400 }
  return found.handle(request, signal)
}

/**
 * This API knows no tokens, and any web page can make a browser post to a loopback address. Browsers say so in these headers,
 * tinyFaaS's clients never send them.
 */
function fromBrowser({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site']
  return headers.origin !== undefined || (site !== undefined && site !== 'none')
}

/** A page of a site that has pointed its own name at this host (DNS rebinding) is same-origin to its browser, but names itself. */
function namesLoopback({ headers, socket }: IncomingMessage): boolean {
  const { host } = headers
  const address = socket.localAddress ?? ''
  if (host === undefined || !/^(?:::1|(?:::ffff:)?127\.)/.test(address)) return true
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]|[\w-]+)(?::\d+)?$/i.test(host)
}

function send(response: ServerResponse, { status, body = '' }: Answer): void {
  if (response.headersSent || response.destroyed) return
  const content = Buffer.from(body)
  response.statusCode = status
  response.setHeader('content-length', content.length)
  if (content.length > 0) response.setHeader('content-type', 'text/plain; charset=utf-8')
  // What of the body has not been read would be taken for the next request.
  if (!response.req.complete) response.setHeader('connection', 'close')
  response.end(content)
}

function pathOf(request: IncomingMessage): string {
  return (request.url ?? '/').split('?', 1)[0] ?? '/'
}

function nameQuery(request: IncomingMessage): string {
  const query = (request.url ?? '').split(/\?(.*)/s)[1] ?? ''
  return new URLSearchParams(query).get('name') ?? ''
}

/** @throws Fault `BODY_TOO_LARGE` */
async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request) {
    const part = Buffer.from(chunk)
    bytes += part.length
    if (bytes > BODY_BYTES_MAX) {
      throw new Fault('BODY_TOO_LARGE', `an upload may have ${BODY_BYTES_MAX} bytes`)
    }
    chunks.push(part)
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  server.listen(port, host)
  try {
    await once(server, 'listening')
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE')) throw cause
    throw new Fault(
      'PORT_TAKEN',
      `port ${port} of ${host} is taken: choose another by SHOAL_COMPAT_TINYFAAS_PORT, or turn the adapter off (SHOAL_COMPAT)`,
      { port },
      { cause },
    )
  }
}
