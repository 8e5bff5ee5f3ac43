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

/** Writes as fast as it may, sends events at a pace, and tells how far it is. */
const SOURCE = `
const told = { produced: 0, open: 0, ended: 0 }
const chunk = Buffer.alloc(65_536, 'x')
module.exports = async (req, res) => {
  if (req.path === '/told') return res.json(told)
  told.open += 1
  res.on('close', () => { told.open -= 1; told.ended += 1 })
  if (req.path === '/events') {
    res.set('content-type', 'text/event-stream')
    for (let n = 0; n < 5 && !res.destroyed; n += 1) {
      res.write('data: ' + n + '\\n\\n')
      await new Promise((resolve) => setTimeout(resolve, 150))
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

test('server-sent events and chunks leave the node one by one, as the function writes them', async () => {
  const { node } = await served()
  await using _ = node
  const startedAtMs = performance.now()
  const answer = await fetch(node.url('/flow/events'))
  assert.equal(answer.headers.get('content-type'), 'text/event-stream')
  const arrivals: number[] = []
  let text = ''
  for await (const chunk of answer.body ?? []) {
    arrivals.push(performance.now() - startedAtMs)
    text += Buffer.from(chunk).toString()
  }
  assert.equal(text, 'data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n')
  assert.ok(arrivals.length >= 4, `${arrivals.length} pieces`)
  assert.ok((arrivals[0] ?? 0) < (arrivals.at(-1) ?? 0) - 300, `came at ${arrivals.join(', ')} ms`)

  using client = grpcClient(`127.0.0.1:${node.grpc.port}`, 'shoal.proto', 'shoal.v1.Functions')
  const chunks: string[] = []
  const at: number[] = []
  for await (const { payload } of client.stream('InvokeStream', {
    function: 'flow',
    path: '/events',
  })) {
    chunks.push(payload.toString())
    at.push(performance.now())
  }
  assert.equal(chunks.join(''), text)
  assert.ok(at.length >= 4 && (at.at(-1) ?? 0) - (at[0] ?? 0) > 300)
})

test('HTTP: a reader that has ended its own side gets a stream with pauses to its end', async () => {
  const { node } = await served()
  await using _ = node
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
  assert.equal(text, 'data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n')
  assert.match(answer, /\r\n0+9\r\n/, 'it was asked whether it is there')
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
