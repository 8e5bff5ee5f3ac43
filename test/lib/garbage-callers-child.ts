import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

// Callers that send what is no request, on many connections, again and again, in a process of their own.

const options: { port: number; connections: number; kind: string } = JSON.parse(
  process.argv[2] ?? '',
)
const { port, connections, kind } = options
/** Of what one connection sends before it looks whether it is still there. */
const PAUSE_MS = 20
const FIELDS = Buffer.from(`X-${'a'.repeat(20)}: ${'b'.repeat(20)}\r\n`.repeat(300))
const KINDS: Readonly<Record<string, readonly Buffer[]>> = {
  garbage: [Buffer.from(Array.from({ length: 4_096 }, (_, at) => (at * 197 + 31) & 0xff))],
  /** Ends only when it is refused. */
  fields: [Buffer.from('GET /echo HTTP/1.1\r\nHost: x\r\n'), FIELDS, FIELDS],
  /** Just within what is allowed, and never whole. */
  held: [
    Buffer.from('GET /echo HTTP/1.1\r\nHost: x\r\n'),
    Buffer.from(`X: ${'y'.repeat(120)}\r\n`.repeat(120)),
  ],
}
const pieces = KINDS[kind] ?? []
const tally = { opened: 0, refused: 0 }

async function peer(): Promise<void> {
  for (;;) {
    const socket = connect({ port, host: '127.0.0.1' })
    const gone = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    socket.on('error', () => undefined)
    socket.once('data', () => (tally.refused += 1))
    socket.once('connect', () => (tally.opened += 1))
    for (const piece of pieces) socket.write(piece)
    await gone
    await sleep(PAUSE_MS)
  }
}

for (let number = 0; number < connections; number += 1) void peer()
const reports = setInterval(() => {
  if (tally.opened < connections || (kind !== 'held' && tally.refused < connections)) return
  clearInterval(reports)
  process.stdout.write(`${JSON.stringify({ msg: 'ready', ...tally })}\n`)
}, 20)
setInterval(() => undefined, 1_000)
