import { createServer } from 'node:http'
import { createServer as createCoapServer } from 'coap'
import { pino } from 'pino'

/**
 * The contestants' yardsticks: the least that Node can do for one echo, in a process of its own.
 *
 * Usage: node bare.ts http|coap; prints `{"msg":"ready","port":n}` and serves until it is killed.
 */
const log = pino()

const SERVERS: Readonly<Record<string, () => Promise<number>>> = {
  http: async () => {
    const server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => response.end(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)))
    })
    const listening = Promise.withResolvers<void>()
    server.listen(0, '127.0.0.1', listening.resolve)
    await listening.promise
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  },
  coap: async () => {
    // cacheSize: the library's default keeps replies without a useful bound (gigabytes within a minute of load).
    const server = createCoapServer({ type: 'udp4', cacheSize: 64 * 1024 }, (request, response) => {
      response.end(request.payload)
    })
    const listening = Promise.withResolvers<void>()
    server.listen(0, '127.0.0.1', () => listening.resolve())
    await listening.promise
    // The library does not say which port it got.
    const socket: unknown = Reflect.get(server, '_sock')
    if (typeof socket !== 'object' || socket === null || !('address' in socket)) {
      throw new TypeError('the coap server has no socket')
    }
    const { address } = socket
    const bound: unknown = typeof address === 'function' ? Reflect.apply(address, socket, []) : {}
    return typeof bound === 'object' && bound !== null && 'port' in bound ? Number(bound.port) : 0
  },
}

const kind = process.argv[2] ?? ''
const start = SERVERS[kind]
if (start === undefined) throw new Error(`usage: bare.ts ${Object.keys(SERVERS).join('|')}`)
log.info({ port: await start() }, 'ready')
