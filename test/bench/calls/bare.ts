import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createCoapServer } from 'coap'
import { generate, parse } from 'coap-packet'
import { pino } from 'pino'

/**
 * The contestants' yardsticks: the least that Node can do for one echo, in a process of its own.
 *
 * `dgram` sends each confirmable request back as its own answer: what a load generator can measure at most. `coap-packet` is the
 * codec that `coap` is built on, with nothing around it.
 *
 * Usage: node bare.ts http|coap|coap-small-cache|coap-packet|dgram; prints `{"msg":"ready","port":n}` and serves until it is killed.
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
  // As the library comes: it keeps replies without a useful bound (gigabytes within a minute of load).
  coap: () => bareCoap(undefined),
  // What the library can do at most: nearly no duplicate is recognised.
  'coap-small-cache': () => bareCoap(64 * 1024),
  'coap-packet': () =>
    bareDatagrams((datagram) => {
      const { messageId, token, payload } = parse(datagram)
      return generate({ code: '2.05', ack: true, messageId, token, payload })
    }),
  dgram: () =>
    bareDatagrams((datagram) => {
      datagram[0] = (datagram[0] ?? 0) | 0x20
      datagram[1] = 0x45
      return datagram
    }),
}

async function bareCoap(cacheSize: number | undefined): Promise<number> {
  const cache = cacheSize === undefined ? {} : { cacheSize }
  const server = createCoapServer({ type: 'udp4', ...cache }, (request, response) => {
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
}

async function bareDatagrams(answer: (datagram: Buffer) => Buffer): Promise<number> {
  // Without a lookup of its own, node:dgram would ask dns.lookup about each address.
  const socket = createSocket({ type: 'udp4', lookup: (host, _, done) => done(null, host, 4) })
  socket.on('message', (datagram, from) => socket.send(answer(datagram), from.port, from.address))
  const listening = once(socket, 'listening')
  socket.bind(0, '127.0.0.1')
  await listening
  return socket.address().port
}

const kind = process.argv[2] ?? ''
const start = SERVERS[kind]
if (start === undefined) throw new Error(`usage: bare.ts ${Object.keys(SERVERS).join('|')}`)
log.info({ port: await start() }, 'ready')
