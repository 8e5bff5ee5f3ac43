import { connect, type Socket } from 'node:net'

// Connections that do nothing, in a process of their own: each end of a connection takes a descriptor.

const { port, count }: { port: number; count: number } = JSON.parse(process.argv[2] ?? '')
const AT_ONCE = 250
const REQUEST = 'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nused'
/** A third says nothing, a third has had an answer, a third has stopped inside a header. */
const OPENERS = [
  async () => undefined,
  (socket: Socket) => {
    socket.write(REQUEST)
    return new Promise<void>((resolve) => socket.once('data', () => resolve()))
  },
  async (socket: Socket) => {
    socket.write('POST /echo HTTP/1.1\r\nHost: x\r\nX-')
  },
]

const tally = { open: 0, lost: 0 }

async function open(number: number): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  socket.on('close', () => (tally.lost += 1))
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  await OPENERS[number % OPENERS.length]?.(socket)
  tally.open += 1
}

let next = 0
async function worker(): Promise<void> {
  while (next < count) await open(next++)
}
await Promise.all(Array.from({ length: AT_ONCE }, worker))
process.stdout.write(`${JSON.stringify({ msg: 'ready', ...tally })}\n`)
setInterval(() => undefined, 1_000)
