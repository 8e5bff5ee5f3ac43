import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import { generate, parse } from 'coap-packet'
import { Samples, type LoadOptions, type Round } from './load.ts'

const PORTS = 8
/** A request without an answer for this long counts as an error and its place is used again. */
const LOST_MS = 2_000

/** Confirmable POSTs to `path` from 8 UDP ports that share `inFlight` outstanding requests. */
export async function loadCoap(options: LoadOptions & { readonly path: string }): Promise<Round> {
  const samples = new Samples()
  const peers = Array.from({ length: PORTS }, () => new Peer(options, samples))
  const started = performance.now()
  await Promise.all(peers.map((peer) => peer.run(Math.ceil(options.inFlight / PORTS))))
  const errors = peers.reduce((sum, peer) => sum + peer.errors, 0)
  return samples.round(performance.now() - started, errors)
}

class Peer {
  errors = 0
  readonly #options: LoadOptions & { readonly path: string }
  readonly #samples: Samples
  readonly #socket: Socket = createSocket('udp4')
  readonly #sentAt = new Map<number, number>()
  #messageId = Math.floor(Math.random() * 65_536)
  #ending = false

  constructor(options: LoadOptions & { readonly path: string }, samples: Samples) {
    this.#options = options
    this.#samples = samples
  }

  async run(inFlight: number): Promise<void> {
    const bound = Promise.withResolvers<void>()
    this.#socket.on('message', (datagram) => this.#answer(datagram))
    this.#socket.bind(0, '127.0.0.1', bound.resolve)
    await bound.promise
    const sweep = setInterval(() => this.#sweep(), 250)
    for (let n = 0; n < inFlight; n++) this.#send()
    await sleep(this.#options.durationMs)
    this.#ending = true
    clearInterval(sweep)
    this.#socket.close()
  }

  #send(): void {
    if (this.#ending) return
    this.#messageId = (this.#messageId + 1) % 65_536
    const token = Buffer.alloc(2)
    token.writeUInt16BE(this.#messageId)
    const datagram = generate({
      code: '0.02',
      confirmable: true,
      messageId: this.#messageId,
      token,
      options: this.#options.path
        .split('/')
        .filter((segment) => segment !== '')
        .map((segment) => ({ name: 'Uri-Path' as const, value: Buffer.from(segment) })),
      payload: this.#options.payload,
    })
    this.#sentAt.set(this.#messageId, performance.now())
    this.#socket.send(datagram, this.#options.port, '127.0.0.1')
  }

  #answer(datagram: Buffer): void {
    const packet = parse(datagram)
    // An empty acknowledgement: the answer comes separately, and wants to be acknowledged itself.
    if (packet.code === '0.00') return
    if (packet.confirmable) {
      const ack = generate({ code: '0.00', ack: true, messageId: packet.messageId })
      this.#socket.send(ack, this.#options.port, '127.0.0.1')
    }
    const id = packet.token.readUInt16BE()
    const sentAt = this.#sentAt.get(id)
    if (sentAt === undefined) return
    this.#sentAt.delete(id)
    if (packet.code.startsWith('2.')) this.#samples.add(performance.now() - sentAt)
    else this.errors += 1
    this.#send()
  }

  #sweep(): void {
    const before = performance.now() - LOST_MS
    for (const [id, at] of this.#sentAt) {
      if (at > before) continue
      this.#sentAt.delete(id)
      this.errors += 1
      this.#send()
    }
  }
}
