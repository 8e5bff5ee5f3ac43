import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '#test/eventually.ts'
import { grpcClient } from '#test/grpc-proxy-scope.ts'
import { RawCoap, uriPath } from '#test/raw-coap.ts'
import { RawTcp } from '#test/raw-tcp.ts'
import { ServedNode } from '#test/served-node.ts'

const MIB = 1024 * 1024
const EVENTS = Array.from({ length: 12 }, (_, n) => `data: ${n}\n\n`)

/** Writes as fast as it may, sends events at a pace or each when it is told to, and tells how far it is. */
const SOURCE = `
const told = { produced: 0, open: 0, ended: 0 }
const chunk = Buffer.alloc(65_536, 'x')
let goOn
module.exports = async (req, res) => {
  if (req.path === '/told') return res.json(told)
  if (req.path === '/next') {
    goOn()
    return res.send('on')
  }
  told.open += 1
  res.on('close', () => { told.open -= 1; told.ended += 1 })
  if (req.path === '/events') {
    res.set('content-type', 'text/event-stream')
    for (let n = 0; n < ${EVENTS.length} && !res.destroyed; n += 1) {
      res.write('data: ' + n + '\\n\\n')
      await new Promise((resolve) => setTimeout(resolve, 150))
    }
    return res.end()
  }
  if (req.path === '/events-by-request') {
    res.set('content-type', 'text/event-stream')
    for (let n = 0; n < ${EVENTS.length} && !res.destroyed; n += 1) {
      res.write('data: ' + n + '\\n\\n')
      await new Promise((resolve) => { goOn = resolve; res.once('close', resolve) })
    }
    return res.end()
  }
  const room = () => new Promise((resolve) => { res.once('drain', resolve); res.once('close', resolve) })
  if (req.path === '/large-events') {
    res.set('content-type', 'text/event-stream')
    for (let n = 0; n < 100_000 && !res.destroyed; n += 1) {
      told.produced += 500
      if (!res.write('data: ' + String(n).padStart(500, '-') + '\\n\\n')) await room()
    }
    return res.end()
  }
  res.set('content-type', 'application/octet-stream')
  for (let n = 0; n < 3_200 && !res.destroyed; n += 1) {
    told.produced += chunk.length
    if (!res.write(chunk)) await room()
  }
  res.end()
}
`
const ALL_BYTES = 3_200 * 65_536
/** For all events: what holds one back holds it for ever. */
const EVENTS_WITHIN_MS = 30_000

interface Told {
  readonly produced: number
  readonly open: number
  readonly ended: number
}

async function served(): Promise<{ node: ServedNode; told: () => Promise<Told> }> {
  const node = await ServedNode.start()
  await node.deploy('flow', SOURCE, { timeoutMs: 60_000 })
  const told = async (): Promise<Told> => {
    const answer = await fetch(node.url('/flow/told'))
    return JSON.parse(await answer.text())
  }
  return { node, told }
}

/** What the function has produced once it goes no further. */
async function standstill(told: () => Promise<Told>): Promise<number> {
  return eventually(async () => {
    const before = await told()
    await sleep(400)
    const after = await told()
    return before.produced > 0 && before.produced === after.produced ? after.produced : undefined
  })
}

/** Reads the events of `/events-by-request`, each of which is written when the one before it has been read. */
async function readByRequest(node: ServedNode, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  let text = ''
  let read = 0
  try {
    for await (const piece of pieces) {
      text += Buffer.from(piece).toString()
      if (text !== EVENTS.slice(0, read + 1).join('')) continue
      read += 1
      const told = await fetch(node.url('/flow/next'))
      assert.equal(await told.text(), 'on')
    }
  } catch (cause) {
    throw new Error(`${read} events have left the node, and not the next one`, { cause })
  }
  assert.equal(text, EVENTS.join(''))
  assert.equal(read, EVENTS.length)
}

async function* overHttp(node: ServedNode): AsyncIterable<Uint8Array> {
  const signal = AbortSignal.timeout(EVENTS_WITHIN_MS)
  const answer = await fetch(node.url('/flow/events-by-request'), { signal })
  assert.equal(answer.headers.get('content-type'), 'text/event-stream')
  yield* answer.body ?? []
}

async function* overGrpc(node: ServedNode): AsyncIterable<Uint8Array> {
  using client = grpcClient(`127.0.0.1:${node.grpc.port}`, 'shoal.proto', 'shoal.v1.Functions')
  const request = { function: 'flow', path: '/events-by-request' }
  const options = { deadlineMs: EVENTS_WITHIN_MS }
  for await (const { payload } of client.stream('InvokeStream', request, options)) yield payload
}

test('server-sent events and chunks leave the node one by one, as the function writes them', async () => {
  const { node } = await served()
  await using _ = node
  await readByRequest(node, overHttp(node))
  await readByRequest(node, overGrpc(node))
})

test('HTTP: a reader that has ended its own side gets a stream with pauses to its end', async () => {
  const { node, told } = await served()
  await using _ = node
  // The looks come ever more seldom: after a first call that takes long there may be none within the stream.
  await told()
  using half = await RawTcp.connect(node.http.port)
  half.socket.allowHalfOpen = true
  half.socket.end('GET /flow/events HTTP/1.1\r\nHost: x\r\n\r\n')
  const answer = await half.rest(10_000)
  const [head = '', ...rest] = answer.split('\r\n\r\n')
  assert.match(head, /^HTTP\/1\.1 200 OK\r\n/)
  let text = ''
  let left = rest.join('\r\n\r\n')
  for (let bytes = 1; bytes > 0;) {
    const size = /^[0-9a-f]{1,15}\r\n/.exec(left)?.[0] ?? assert.fail(answer)
    bytes = Number.parseInt(size, 16)
    text += left.slice(size.length, size.length + bytes)
    left = left.slice(size.length + bytes + 2)
  }
  assert.equal(left, '')
  assert.equal(text, EVENTS.join(''))
  assert.match(answer, /\r\n0+[9a]\r\n/, 'it was asked whether it is there')
})

test('HTTP: a reader that stops makes the function stop, in bounded memory, and gets every byte in the end', async () => {
  const { node, told } = await served()
  await using _ = node
  const rssBefore = process.memoryUsage().rss
  const socket = connect({ port: node.http.port, host: '127.0.0.1' })
  socket.write('GET /flow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  await once(socket, 'readable')
  const produced = await standstill(told)
  assert.ok(produced < 24 * MIB, `${produced} bytes were produced for nobody`)
  const grown = process.memoryUsage().rss - rssBefore
  assert.ok(grown < 64 * MIB, `the agent grew by ${grown} bytes`)
  let bytes = 0
  for await (const chunk of socket as AsyncIterable<Buffer>) bytes += chunk.length
  assert.ok(bytes >= ALL_BYTES, `${bytes} of ${ALL_BYTES} bytes`)
  assert.equal((await told()).produced, ALL_BYTES)
})

test('gRPC: a reader that stops makes the function stop, and one that leaves ends it', async () => {
  const { node, told } = await served()
  await using _ = node
  using client = grpcClient(`127.0.0.1:${node.grpc.port}`, 'shoal.proto', 'shoal.v1.Functions')
  const stream = client.stream('InvokeStream', { function: 'flow' })
  const chunks = stream[Symbol.asyncIterator]()
  await chunks.next()
  const produced = await standstill(told)
  assert.ok(produced < 24 * MIB, `${produced} bytes were produced for nobody`)
  for (let n = 0; n < 400; n += 1) await chunks.next()
  assert.ok((await told()).produced > produced, 'it goes on with its reader')
  stream.cancel()
  await eventually(async () => (await told()).ended === 1)
  assert.ok((await told()).produced < ALL_BYTES)
})

test('CoAP: an observer that acknowledges nothing makes the function stop, and one that does not want it ends it', async () => {
  const { node, told } = await served()
  await using _ = node
  await using client = await RawCoap.open(node.coap.port)
  const observe = { name: 'Observe' as const, value: Buffer.alloc(0) }
  const options = [observe, ...uriPath('flow'), ...uriPath('large-events')]
  client.send({ confirmable: true, code: 'GET', token: Buffer.from('o'), options })
  assert.equal((await client.receive()).code, '2.05')
  const event = await client.receive()
  const produced = await standstill(told)
  assert.ok(produced < 4 * MIB, `${produced} bytes were produced for nobody`)
  const { messageId } = event
  client.send({ reset: true, code: '0.00', messageId, token: Buffer.alloc(0) })
  await eventually(async () => (await told()).ended === 1)
})
