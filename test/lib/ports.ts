import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'

/**
 * A port that was free a moment ago, for programs that cannot be asked which one they took. Where port 0 can be given, give 0.
 * Checked on `::` (dual-stack), so it is free on 127.0.0.1 as well.
 */
export async function freePort(kind: 'tcp' | 'udp' = 'tcp'): Promise<number> {
  return kind === 'tcp' ? freeTcpPort() : freeUdpPort()
}

async function freeTcpPort(): Promise<number> {
  const server = createServer()
  server.listen(0, '::')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new TypeError('a TCP address')
  return address.port
}

async function freeUdpPort(): Promise<number> {
  const socket = createSocket({ type: 'udp6' })
  socket.bind(0, '::')
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  await once(socket, 'close')
  return port
}
