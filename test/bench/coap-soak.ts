/**
 * Does the CoAP front's memory stay bounded? Confirmable requests from many peers, each an address and a port of its own, every
 * twentieth sent twice; prints the server's memory as it goes, and fails when it goes beyond the bound, a request is not answered
 * or its duplicate was not recognised.
 *
 *   node test/bench/coap-soak.ts [--requests 10000000] [--peers 10000] [--rss-mib-max 256]
 *
 * Peers are 127.1.0.0, 127.1.0.1, ...: Linux only. Needs as many open files as peers (`ulimit -n`).
 */
import { fork } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { generate } from 'coap-packet'

interface ServerStats {
  readonly rss: number
  readonly heapUsed: number
  readonly external: number
  readonly dedupEntries: number
  readonly dedupBytes: number
  readonly dedupEvicted: number
  readonly duplicates: number
}

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '10000000' },
    peers: { type: 'string', default: '10000' },
    'rss-mib-max': { type: 'string', default: '256' },
  },
})
const requests = Number(values.requests)
const peers = Number(values.peers)
const rssMiBMax = Number(values['rss-mib-max'])
const OUTSTANDING = 64
const LOST_MS = 2_000
/** As often as RFC 7252 sends a message again (MAX_RETRANSMIT). */
const RESENDS_MAX = 4
const TWICE_EVERY = 20
const REPORT_EVERY_MS = 5_000
const MIB = 1024 * 1024

/** One outstanding request after the other, each from the next peer that is free. */
interface Place {
  readonly datagram: Buffer
  peer: number
  messageId: number
  sentMs: number
  resends: number
}

class Soak {
  answered = 0
  refused = 0
  lost = 0
  twice = 0
  readonly finished = Promise.withResolvers<void>()
  readonly #sockets: Socket[] = []
  readonly #messageIds = new Uint16Array(peers)
  readonly #places: Place[] = []
  #nextPeer = 0
  #sent = 0

  async open(port: number): Promise<void> {
    for (let peer = 0; peer < peers; peer++) {
      const socket = createSocket('udp4')
      socket.on('message', (datagram) => this.#answer(peer, datagram))
      const connected = once(socket, 'connect')
      socket.bind(0, `127.1.${(peer >> 8) & 0xff}.${peer & 0xff}`, () =>
        socket.connect(port, '127.0.0.1'),
      )
      await connected
      this.#sockets.push(socket)
    }
  }

  start(): void {
    for (let number = 0; number < OUTSTANDING; number++) {
      const datagram = generate({
        code: '0.02',
        confirmable: true,
        messageId: 0,
        token: Buffer.from([number, 0, 0]),
        options: [{ name: 'Uri-Path', value: Buffer.from('echo') }],
        payload: Buffer.alloc(100, 'x'),
      })
      const place = { datagram, peer: 0, messageId: 0, sentMs: 0, resends: 0 }
      this.#places.push(place)
      this.#next(place)
    }
  }

  sweep(): void {
    const before = performance.now() - LOST_MS
    for (const place of this.#places) {
      if (place.peer < 0 || place.sentMs > before) continue
      if (place.resends === RESENDS_MAX) {
        const what = `message ${place.messageId} of peer ${place.peer}`
        return this.finished.reject(
          new Error(`${what} was not answered, sent ${RESENDS_MAX + 1} times`),
        )
      }
      this.lost++
      place.resends++
      this.#sockets[place.peer]?.send(place.datagram)
      place.sentMs = performance.now()
    }
  }

  close(): void {
    for (const socket of this.#sockets) socket.close()
  }

  #next(place: Place): void {
    if (this.#sent === requests) {
      place.peer = -1
      if (this.answered + this.refused === requests) this.finished.resolve()
      return
    }
    const number = this.#sent++
    const peer = this.#nextPeer
    this.#nextPeer = (peer + 1) % peers
    const messageId = (this.#messageIds[peer] = ((this.#messageIds[peer] ?? 0) + 1) & 0xffff)
    const { datagram } = place
    place.peer = peer
    place.messageId = messageId
    datagram[2] = datagram[5] = messageId >> 8
    datagram[3] = datagram[6] = messageId & 0xff
    place.sentMs = performance.now()
    place.resends = 0
    this.#sockets[peer]?.send(datagram)
    if (number % TWICE_EVERY > 0) return
    this.twice++
    this.#sockets[peer]?.send(Buffer.from(datagram))
  }

  #answer(peer: number, datagram: Buffer): void {
    const place = this.#places[datagram[4] ?? 0]
    if (place?.peer !== peer || datagram.readUInt16BE(5) !== place.messageId) return
    if (datagram[1] === 0x45) this.answered++
    else this.refused++
    this.#next(place)
  }
}

const server = fork(new URL('coap-soak-server.ts', import.meta.url))
const told: { port: number }[] = await once(server, 'message')
const port = told[0]?.port ?? 0
const soak = new Soak()
await soak.open(port)
let last: ServerStats | undefined
let rssMax = 0
server.on('message', (stats: ServerStats) => {
  last = stats
  rssMax = Math.max(rssMax, stats.rss)
})
const startedMs = performance.now()
const report = (): void => {
  if (last === undefined) return
  const { rss, heapUsed, external, dedupEntries, dedupBytes, dedupEvicted, duplicates } = last
  const line = {
    seconds: Math.round((performance.now() - startedMs) / 1_000),
    answered: soak.answered,
    rssMiB: Math.round(rss / MIB),
    heapUsedMiB: Math.round(heapUsed / MIB),
    externalMiB: Math.round(external / MIB),
    dedupEntries,
    dedupMiB: Number((dedupBytes / MIB).toFixed(1)),
    dedupEvicted,
    duplicates,
  }
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
soak.start()
const sweeper = setInterval(() => soak.sweep(), 250)
const reporter = setInterval(report, REPORT_EVERY_MS)
await soak.finished.promise
await once(server, 'message') // What it has now, at the end.
clearInterval(sweeper)
clearInterval(reporter)
report()
soak.close()
server.disconnect()
const { answered, refused, lost, twice } = soak
const rssMiB = Math.round(rssMax / MIB)
process.stdout.write(`${JSON.stringify({ answered, refused, lost, twice, rssMiBMax: rssMiB })}\n`)
if (refused > 0) throw new Error(`${refused} requests were refused`)
if ((last?.duplicates ?? 0) < twice) throw new Error(`${last?.duplicates} of ${twice} duplicates`)
if (rssMiB > rssMiBMax) throw new Error(`${rssMiB} MiB, more than ${rssMiBMax}`)
