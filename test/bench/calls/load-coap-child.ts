/**
 * The generator of `loadCoap` where no C compiler is at hand: `node load-coap-child.ts <port> <in flight> <milliseconds> <datagram in
 * hex>`; prints one `Round` as JSON.
 *
 * It shall cost less than whatever it measures: a datagram is built once per outstanding request and then only gets a new message
 * id and token, an answer is recognised by its first eight bytes, and connected sockets need no address per datagram.
 */
import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import { Samples } from './load.ts'

const PORTS = 8
/** A request without an answer for this long counts as an error and its place is used again. */
const LOST_MS = 2_000

/** One outstanding request after the other. Its number and the message id are the token. */
interface Place {
  readonly datagram: Buffer
  messageId: number
  sentMs: number
}

class Port {
  errors = 0
  readonly #samples: Samples
  readonly #places: readonly Place[]
  readonly #socket: Socket = createSocket('udp4')
  #messageId = Math.floor(Math.random() * 65_536)

  constructor(template: Buffer, places: number, samples: Samples) {
    this.#samples = samples
    this.#places = Array.from({ length: places }, (_, number) => {
      const datagram = Buffer.from(template)
      datagram.writeUInt16BE(number, 4)
      return { datagram, messageId: -1, sentMs: 0 }
    })
  }

  async connect(port: number): Promise<void> {
    const connected = Promise.withResolvers<void>()
    this.#socket.on('message', (datagram) => this.#answer(datagram))
    // An ICMP error, say because nobody listens: the request is lost, and counted when its time is over.
    this.#socket.on('error', () => undefined)
    this.#socket.connect(port, '127.0.0.1', connected.resolve)
    await connected.promise
  }

  start(): void {
    for (const place of this.#places) this.#send(place)
  }

  /** Gives up on what is lost. */
  sweep(): void {
    const before = performance.now() - LOST_MS
    for (const place of this.#places) {
      if (place.sentMs > before) continue
      this.errors += 1
      this.#send(place)
    }
  }

  close(): void {
    this.#socket.close()
  }

  #send(place: Place): void {
    const messageId = (this.#messageId = (this.#messageId + 1) & 0xffff)
    const { datagram } = place
    place.messageId = messageId
    datagram[2] = datagram[6] = messageId >> 8
    datagram[3] = datagram[7] = messageId & 0xff
    place.sentMs = performance.now()
    this.#socket.send(datagram)
  }

  #answer(datagram: Buffer): void {
    const code = datagram[1] ?? 0
    // An empty acknowledgement: the answer comes separately, and wants to be acknowledged itself.
    if (code === 0 || datagram.length < 8) return
    if (((datagram[0] ?? 0) & 0x30) === 0) this.#acknowledge(datagram)
    const place = this.#places[pairAt(datagram, 4)]
    if (place === undefined || place.messageId !== pairAt(datagram, 6)) return
    if (code >> 5 === 2) this.#samples.add(performance.now() - place.sentMs)
    else this.errors += 1
    this.#send(place)
  }

  #acknowledge(datagram: Buffer): void {
    this.#socket.send(Buffer.from([0x60, 0, datagram[2] ?? 0, datagram[3] ?? 0]))
  }
}

function pairAt(datagram: Buffer, at: number): number {
  return ((datagram[at] ?? 0) << 8) | (datagram[at + 1] ?? 0)
}

const [serverPort = 0, inFlight = 0, durationMs = 0] = process.argv.slice(2, 5).map(Number)
const template = Buffer.from(process.argv[5] ?? '', 'hex')
const samples = new Samples()
const used = Math.min(PORTS, inFlight)
const ports = Array.from(
  { length: used },
  (_, n) => new Port(template, Math.floor((inFlight + used - 1 - n) / used), samples),
)
for (const port of ports) await port.connect(serverPort)
const startedMs = performance.now()
for (const port of ports) port.start()
const sweeper = setInterval(() => {
  for (const port of ports) port.sweep()
}, 250)
await sleep(durationMs)
clearInterval(sweeper)
const errors = ports.reduce((sum, port) => sum + port.errors, 0)
process.stdout.write(`${JSON.stringify(samples.round(performance.now() - startedMs, errors))}\n`)
for (const port of ports) port.close()
