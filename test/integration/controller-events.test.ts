import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { connect, type Socket } from 'node:net'
import { it } from 'node:test'
import { EventHub } from '#controller/events/index.ts'
import { eventually } from '#test/eventually.ts'
import { EventStream } from '../../controller/api/event-stream.ts'

const TOKEN = 'a-token-that-is-long-enough'
/** Longer than any of these tests waits: whoever is let go is so for another reason. */
const NEVER_MS = 60_000
const UPGRADE =
  'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'

interface StreamScope extends AsyncDisposable {
  readonly events: EventHub
  readonly stream: EventStream
  /** Clients that asked for the stream. */
  readonly upgrades: number
  /** A client that sends this and never ends its own side. */
  client(request: string): Socket
  connections(): Promise<number>
}

async function streamScope(refuseMs?: number): Promise<StreamScope> {
  const events = new EventHub()
  // More than the buffers of a connection hold.
  const server: Server = createServer((_, response) => response.end(Buffer.alloc(16 * 1024 * 1024)))
  const stream = new EventStream({
    server,
    token: TOKEN,
    events,
    ...(refuseMs === undefined ? {} : { refuseMs }),
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  const { port } = address
  const clients: Socket[] = []
  let upgrades = 0
  server.on('upgrade', () => {
    upgrades += 1
  })
  return {
    events,
    stream,
    get upgrades() {
      return upgrades
    },
    client(request) {
      const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      socket.on('error', () => undefined)
      socket.write(request)
      clients.push(socket)
      return socket
    },
    connections: async () =>
      new Promise((resolve, reject) => {
        server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)))
      }),
    async [Symbol.asyncDispose]() {
      for (const socket of clients) socket.destroy()
      stream.close()
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

it('a client that is refused is let go, also when it does not end its own side', async () => {
  await using scope = await streamScope(NEVER_MS)
  for (const path of ['/v1/events?token=wrong', '/v1/events', '/elsewhere']) {
    const socket = scope.client(`GET ${path} HTTP/1.1\r\n${UPGRADE}`)
    const [answer]: Buffer[] = await once(socket, 'data')
    assert.match(String(answer), path === '/elsewhere' ? /^HTTP\/1\.1 404/ : /^HTTP\/1\.1 401/)
  }
  await eventually(async () => (await scope.connections()) === 0)
})

/** Its refusal waits behind an answer that it does not read. */
const CLOGGED = `GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/events HTTP/1.1\r\n${UPGRADE}`

it('a client that is refused and does not read is let go as well', async () => {
  await using scope = await streamScope()
  for (let count = 0; count < 5; count += 1) scope.client(CLOGGED).pause()
  await eventually(() => scope.upgrades === 5)
  await eventually(async () => (await scope.connections()) === 0)
})

it('clients that are being refused do not hold up the end', async () => {
  await using scope = await streamScope(NEVER_MS)
  for (let count = 0; count < 5; count += 1) scope.client(CLOGGED).pause()
  await eventually(() => scope.upgrades === 5)
  scope.stream.close()
  await eventually(async () => (await scope.connections()) === 0)
})

it('a client that does not read is cut off; nobody makes events for nobody', async () => {
  await using scope = await streamScope()
  const { events } = scope
  assert.equal(events.wanted, false)
  const socket = scope.client(`GET /v1/events?token=${TOKEN} HTTP/1.1\r\n${UPGRADE}`)
  await eventually(() => events.wanted)
  socket.pause()
  let sentBytes = 0
  await eventually(
    () => {
      const node = 'x'.repeat(256 * 1024)
      sentBytes += node.length
      events.publish({ type: 'node-deleted', node })
      return !events.wanted
    },
    { everyMs: 1 },
  )
  // What the kernel's buffers hold, and the bound.
  assert.ok(sentBytes < 64 * 1024 * 1024, `${sentBytes} bytes were taken for it`)
})
