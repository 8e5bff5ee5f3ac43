import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { Fault } from '#shared/fault.ts'
import { PORTS, type DeployConfig, type PortName } from './config.ts'

/** Fails when a port that we are about to open is taken, naming the setting that moves it. @throws Fault `PORT_TAKEN` */
export async function checkPorts(config: DeployConfig): Promise<void> {
  const names = Object.keys(PORTS).filter(isPortName)
  const taken: string[] = []
  for (const name of names) {
    const port = config.ports[name]
    if (port === -1) continue
    const { protocol, settings } = PORTS[name]
    // The ports that devices call are opened on all addresses.
    const host = name === 'http' || name === 'coap' || name === 'grpc' ? undefined : '127.0.0.1'
    const free = protocol === 'tcp' ? await isTcpFree(port, host) : await isUdpFree(port)
    if (!free) {
      taken.push(
        `${name} port ${port}/${protocol} is taken; another one: ${settings[0]}=<port> npm start`,
      )
    }
  }
  if (taken.length > 0) throw new Fault('PORT_TAKEN', taken.join('\n'))
}

function isPortName(name: string): name is PortName {
  return name in PORTS
}

async function isTcpFree(port: number, host: string | undefined): Promise<boolean> {
  const server = createServer()
  const done = Promise.withResolvers<boolean>()
  server.once('error', (error) => done.resolve(!isTaken(error)))
  server.listen({ port, host, exclusive: true }, () => done.resolve(true))
  const free = await done.promise
  await new Promise((resolve) => server.close(resolve))
  return free
}

async function isUdpFree(port: number): Promise<boolean> {
  const done = Promise.withResolvers<boolean>()
  // IPv6 may be off: then this says "not taken", and the agent decides.
  const socket = createSocket({ type: 'udp6' })
  socket.once('error', (error) => done.resolve(!isTaken(error)))
  socket.bind({ port, exclusive: true }, () => done.resolve(true))
  const free = await done.promise
  await new Promise<void>((resolve) => {
    socket.close(() => resolve())
  }).catch(() => undefined)
  return free
}

/** A privileged port (EACCES) is for the part that opens it to complain about. */
function isTaken(error: Error): boolean {
  return 'code' in error && error.code === 'EADDRINUSE'
}
