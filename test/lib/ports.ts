import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type ListenOptions } from 'node:net'

const PORT_MIN = 10_240
const PORT_MAX = 65_535
const PORTS_ENOUGH = 1_000
const TRIES_MAX = 1_000
/** Every address; a kernel without IPv6 has no `::`. */
const ANY = existsSync('/proc/net/if_inet6') ? '::' : '0.0.0.0'

/**
 * A port for a program that cannot be asked which one it took. Where port 0 can be given, give 0.
 *
 * It is free on all addresses, nothing that asks the kernel for any port gets it, and no other process of the tests is given it
 * while this one lives: the program may take its time, and may be started again on it.
 */
export async function freePort(kind: 'tcp' | 'udp' = 'tcp'): Promise<number> {
  const [min, max] = portsOfNobody()
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    const port = randomInt(min, max + 1)
    if ((await isFree(kind, port)) && (await reserve(kind, port))) return port
  }
  throw new Error(`no free ${kind} port from ${min} to ${max}`)
}

/** Ports that the kernel gives to nobody who did not ask for them by number (ip(7), `ip_local_port_range`). */
function portsOfNobody(): [min: number, max: number] {
  const text = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
  const [low = PORT_MIN, high = PORT_MAX] = text.trim().split(/\s+/).map(Number)
  if (low - PORT_MIN >= PORTS_ENOUGH) return [PORT_MIN, low - 1]
  if (PORT_MAX - high >= PORTS_ENOUGH) return [high + 1, PORT_MAX]
  return [PORT_MIN, PORT_MAX]
}

/** By a name in the kernel (unix(7), abstract sockets) that ends with this process, however that ends. */
function reserve(kind: 'tcp' | 'udp', port: number): Promise<boolean> {
  return listens({ path: `\0shoal-test-${kind}-${port}` }, 'hold')
}

async function isFree(kind: 'tcp' | 'udp', port: number): Promise<boolean> {
  if (kind === 'tcp') return listens({ port, host: ANY }, 'close')
  const socket = createSocket({ type: ANY === '::' ? 'udp6' : 'udp4' })
  try {
    socket.bind(port, ANY)
    await once(socket, 'listening')
    return true
  } catch {
    return false
  } finally {
    socket.close()
  }
}

async function listens(where: ListenOptions, then: 'hold' | 'close'): Promise<boolean> {
  const server = createServer()
  try {
    server.listen(where)
    await once(server, 'listening')
  } catch {
    return false
  }
  if (then === 'hold') {
    server.unref()
    return true
  }
  server.close()
  await once(server, 'close')
  return true
}
