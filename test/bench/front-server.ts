/** One server for front.ts: `node test/bench/front-server.ts <name>`; prints its port when it serves. */
import { createServer } from 'node:http'
import { join } from 'node:path'
import { loadPackageDefinition, Server, ServerCredentials } from '@grpc/grpc-js'
import type { sendUnaryData, ServerUnaryCall, ServiceClientConstructor } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { createServer as createCoapServer } from 'coap'
import type { Invoker } from '#agent/invoke/index.ts'
import { CoapProxy } from '#agent/proxy/coap/index.ts'
import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { CapturedLog } from '#test/captured-log.ts'

const echo: Invoker = {
  match: (path) => (path === 'echo' ? { fn: 'echo', rest: '' } : undefined),
  names: () => ['echo'],
  invoke: async ({ body }) => ({ status: 200, headers: [], body }),
  start: ({ body }, _, resolve) => resolve({ status: 200, headers: [], body }),
  accept: async () => undefined,
}

const options = {
  host: '::',
  port: 0,
  invoker: echo,
  bodyBytesMax: 8 * 1024 * 1024,
  log: new CapturedLog(),
}

const servers: Record<string, () => Promise<number>> = {
  'proxy-http': async () => (await HttpProxy.listen(options)).port,
  'proxy-coap': async () => (await CoapProxy.listen(options)).port,
  'proxy-grpc': async () => (await GrpcProxy.listen(options)).port,
  'bare-http': bareHttp,
  'bare-coap': bareCoap,
  'bare-grpc': bareGrpc,
}

async function bareHttp(): Promise<number> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      response.writeHead(200, { 'content-type': 'text/plain' })
      response.end(Buffer.concat(chunks))
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '::', resolve)
  })
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

/** The `coap` package's server, its cache bounded, or it would not live through the run. */
async function bareCoap(): Promise<number> {
  const server = createCoapServer({ type: 'udp6', cacheSize: 64 * 1024 }, (request, response) => {
    response.end(request.payload)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, () => resolve())
  })
  const socket: unknown = Reflect.get(server, '_sock')
  if (typeof socket !== 'object' || socket === null) throw new Error('the server has no socket')
  const address: () => { port: number } = Reflect.get(socket, 'address')
  return address.call(socket).port
}

async function bareGrpc(): Promise<number> {
  const proto = join(import.meta.dirname, '../../proto/tinyfaas.proto')
  let parent: object = loadPackageDefinition(loadSync(proto))
  for (const name of ['openfogstack', 'tinyfaas', 'tinyfaas']) parent = Reflect.get(parent, name)
  const Service: ServiceClientConstructor = Reflect.get(parent, 'TinyFaaS')
  const server = new Server()
  server.addService(Service.service, {
    Request(call: ServerUnaryCall<{ data: string }, object>, done: sendUnaryData<object>) {
      done(null, { response: call.request.data })
    },
  })
  return new Promise((resolve, reject) => {
    server.bindAsync('[::]:0', ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port)
      else reject(error)
    })
  })
}

const name = process.argv[2] ?? ''
const start = servers[name]
if (start === undefined) throw new Error(`no server ${name}: ${Object.keys(servers).join(', ')}`)
process.once('SIGINT', () => process.exit(0))
process.stdout.write(`${JSON.stringify({ msg: 'ready', port: await start() })}\n`)
