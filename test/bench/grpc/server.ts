/**
 * One contestant of `test/bench/grpc.ts`, in a process of its own: prints `{"msg":"ready","port":n}` and serves until SIGTERM.
 *
 *     node test/bench/grpc/server.ts grpc-js|http2|front|front-runner [tree]
 *
 * `tree`: a checkout whose front is measured instead of this one's.
 */
import { once } from 'node:events'
import { createServer, type ServerHttp2Stream } from 'node:http2'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import type { Invoker } from '#agent/invoke/index.ts'
import type { GrpcProxyOptions } from '#agent/proxy/grpc/index.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { LANE_SETTINGS } from '#test/invoke-scope.ts'
import { RunnerProcess } from '#test/runner-process.ts'
import { PATHS } from './messages.ts'

interface Front {
  readonly GrpcProxy: { listen(options: GrpcProxyOptions): Promise<{ readonly port: number }> }
}

const [kind = '', tree = resolve(import.meta.dirname, '../../..')] = process.argv.slice(2)

/** The least that a front can have behind it. */
const echo: Invoker = {
  match: () => undefined,
  names: () => ['echo'],
  invoke: async ({ body }) => ({ status: 200, headers: [], body }),
  start: ({ body }, _signal, answer) => answer({ status: 200, headers: [], body }),
  accept: async () => undefined,
}

async function front(invoker: Invoker): Promise<number> {
  const file = pathToFileURL(resolve(tree, 'agent/proxy/grpc/index.ts'))
  const { GrpcProxy }: Front = await import(file.href)
  const bodyBytesMax = LANE_SETTINGS.bodyBytesMax
  const log = new CapturedLog()
  return (await GrpcProxy.listen({ host: '::', port: 0, invoker, bodyBytesMax, log })).port
}

/** Node's own HTTP/2 with the least of gRPC: every message comes back, whatever it is. */
function http2Echo(): Promise<number> {
  const server = createServer({ settings: { maxConcurrentStreams: 1_000 } })
  server.on('stream', (stream: ServerHttp2Stream) => {
    const chunks: Buffer[] = []
    stream.on('error', () => undefined)
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('end', () => {
      stream.respond({ 'content-type': 'application/grpc' }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      stream.end(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))
    })
  })
  return new Promise((done) => {
    server.listen(0, '::', () => {
      const address = server.address()
      done(typeof address === 'object' && address !== null ? address.port : 0)
    })
  })
}

function identity(bytes: Buffer): Buffer {
  return bytes
}

function grpcJsEcho(): Promise<number> {
  const server = new Server()
  for (const path of Object.values(PATHS)) {
    const codec = { requestSerialize: identity, requestDeserialize: identity }
    const method = { path, requestStream: false, responseStream: false, ...codec }
    server.addService(
      { Echo: { ...method, responseSerialize: identity, responseDeserialize: identity } },
      {
        Echo: (call: { request: Buffer }, answer: (error: null, value: Buffer) => void) =>
          answer(null, call.request),
      },
    )
  }
  return new Promise((done, failed) => {
    server.bindAsync('[::]:0', ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) done(port)
      else failed(error)
    })
  })
}

await using parts = new AsyncDisposableStack()
const starts: Readonly<Record<string, () => Promise<number>>> = {
  'grpc-js': grpcJsEcho,
  http2: http2Echo,
  front: () => front(echo),
  'front-runner': async () => {
    const source = 'module.exports = (req, res) => res.send(req.rawBody)\n'
    const { scope, link } = parts.use(await RunnerProcess.start(source))
    const settings = { ...LANE_SETTINGS, concurrency: 1_024 }
    scope.router.ensure('echo', settings).attach(link, 'r1-0a1b2c3d')
    return front(scope.router)
  },
}
const start = starts[kind]
if (start === undefined) throw new Error(`no server ${kind}: ${Object.keys(starts).join(', ')}`)
const ended = once(process, 'SIGTERM')
process.stdout.write(`${JSON.stringify({ msg: 'ready', port: await start() })}\n`)
await ended
await parts.disposeAsync()
process.exit(0)
