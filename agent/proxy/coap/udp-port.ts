import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { isIPv6 } from 'node:net'
import { codeOf } from '../listen-fault.ts'
import type { ProxyLog } from '../log.ts'
import type { Peer } from './peer.ts'

export interface UdpPortOptions {
  /** `::`: IPv6, and IPv4 where the system has it. */
  readonly host: string
  /** 0: any that is free. */
  readonly port: number
  readonly reusePort: boolean
  readonly log: ProxyLog
  readonly onDatagram: (datagram: Buffer, from: RemoteInfo) => void
}

const ANY_IPV4 = '0.0.0.0'
const SEND_QUEUE_BYTES_MAX = 4 * 1024 * 1024
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
/** A port that is free for IPv6 may be taken for IPv4. */
const PORTS_TRIED_MAX = 16

/**
 * A port for datagrams. IPv4 has a socket of its own: through one for both, each of its datagrams takes the kernel's way for IPv6, and
 * Node a longer address to write and to read.
 */
export class UdpPort {
  readonly #sockets: Socket[] = []
  #ipv4!: Socket
  #other!: Socket
  #sends = 0
  #queueFull = false
  #closed = false

  private constructor() {}

  /** @throws the system's error */
  static async bind(options: UdpPortOptions): Promise<UdpPort> {
    for (let tried = 1; ; tried++) {
      const port = new UdpPort()
      try {
        await port.#bind(options)
        return port
      } catch (error) {
        await port.close()
        const otherPort = options.port === 0 && codeOf(error) === 'EADDRINUSE'
        if (!otherPort || tried === PORTS_TRIED_MAX) throw error
      }
    }
  }

  get port(): number {
    return this.#other.address().port
  }

  /** @returns false when it is lost: too much waits to be sent, or the system does not take it */
  send(datagram: Buffer, { address, port }: Peer): boolean {
    if (this.#closed) return true
    const socket = address.includes(':') ? this.#other : this.#ipv4
    // Not asked each time: it costs, and so few more do not matter.
    if (this.#queueFull || (this.#sends = (this.#sends + 1) & 15) === 0) {
      this.#queueFull = this.#queuedBytes > SEND_QUEUE_BYTES_MAX
    }
    if (this.#queueFull) return false
    try {
      socket.send(datagram, port, address)
      return true
    } catch {
      // Whatever address a datagram says that it came from: to UDP its answer is lost, and others are served on.
      return false
    }
  }

  /** Nothing is sent or received from now on. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(
      this.#sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))),
    )
  }

  get #queuedBytes(): number {
    const other = this.#other.getSendQueueSize()
    return this.#ipv4 === this.#other ? other : other + this.#ipv4.getSendQueueSize()
  }

  async #bind(options: UdpPortOptions): Promise<void> {
    const { host, port, onDatagram } = options
    this.#other = this.#ipv4 = await this.#socket(options, host, port)
    if (host === '::') {
      try {
        this.#ipv4 = await this.#socket(options, ANY_IPV4, this.port)
      } catch (error) {
        // A system without IPv4.
        if (!['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes(codeOf(error))) throw error
      }
    }
    for (const socket of this.#sockets) socket.on('message', onDatagram)
  }

  async #socket(options: UdpPortOptions, host: string, port: number): Promise<Socket> {
    const { reusePort, log } = options
    const socket = createSocket({
      type: isIPv6(host) ? 'udp6' : 'udp4',
      ipv6Only: host === '::',
      reusePort,
      // Peers are addresses already; the default would ask `dns.lookup` and wait a tick, for each datagram.
      lookup: (address, _options, done) => done(null, address, 0),
    })
    this.#sockets.push(socket)
    // Asked for first: with a lookup that does not wait, `bind` emits it at once.
    const listening = once(socket, 'listening')
    socket.bind(port, host)
    await listening
    socket.on('error', (error) => log.warn({ err: error }, 'CoAP socket error'))
    // The kernel gives at most net.core.rmem_max; a burst that does not fit is lost, and sent again.
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
    return socket
  }
}
