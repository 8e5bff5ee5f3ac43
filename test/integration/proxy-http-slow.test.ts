import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { blocks, BodyBudget } from '#agent/sockets/index.ts'
import { collectGarbage } from '#test/collect-garbage.ts'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { RawTcp } from '#test/raw-tcp.ts'

// Callers that take their answers slowly get them whole, or learn that they have not.

/** More than kernels hold between two sockets. */
const LARGE_BYTES = 24 * 1024 * 1024
const GET_LARGE = `GET /bytes?bytes=${LARGE_BYTES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`

async function paused(port: number, request: string): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.pause()
  socket.write(request)
  return socket
}

/** Reads up to so many bytes; resolves to how many there were before the end. */
async function take(socket: Socket, bytesMax: number): Promise<number> {
  let bytes = 0
  while (bytes < bytesMax && !socket.readableEnded && !socket.destroyed) {
    const chunk: Buffer | null = socket.read()
    bytes += chunk?.length ?? 0
    if (chunk === null) await sleep(1)
  }
  return bytes
}

test('an answer that its caller takes slowly comes whole, however long that takes and the node has run', async () => {
  const requestTimeoutMs = 1_000
  await using scope = await httpProxyScope({ requestTimeoutMs })
  await eventually(() => performance.now() > 2 * requestTimeoutMs)
  const socket = await paused(scope.proxy.port, GET_LARGE)
  let bytes = 0
  const startedMs = performance.now()
  // Each time a part of what waits, and never long enough for one who takes nothing.
  for (let part = 0; part < 12; part += 1) {
    await sleep(requestTimeoutMs / 4)
    bytes += await take(socket, LARGE_BYTES / 16)
  }
  assert.ok(performance.now() - startedMs > 2 * requestTimeoutMs)
  bytes += await take(socket, Number.POSITIVE_INFINITY)
  assert.ok(bytes > LARGE_BYTES, `${bytes} bytes`)
  socket.destroy()
})

test('a node that stops sends on what slow callers have not taken, as long as it waits for calls', async () => {
  await using scope = await httpProxyScope()
  const socket = await paused(scope.proxy.port, GET_LARGE)
  await eventually(() => scope.invoker.seen.length === 1 && scope.proxy.inFlight === 0)
  const closing = scope.proxy.close(10_000)
  await sleep(600)
  const bytes = await take(socket, Number.POSITIVE_INFINITY)
  assert.ok(bytes > LARGE_BYTES, `${bytes} bytes`)
  await closing
})

const BREAKS = {
  'a stream that ends with its connection': 'GET /events?count=1&then=wait HTTP/1.0\r\n\r\n',
  'a stream in chunks': 'GET /events?count=1&then=wait HTTP/1.1\r\nHost: x\r\n\r\n',
  'a large answer': GET_LARGE,
}

for (const [name, request] of Object.entries(BREAKS)) {
  test(`an answer that a stopping node breaks off does not look whole: ${name}`, async () => {
    await using scope = await httpProxyScope()
    const socket = await paused(scope.proxy.port, request)
    let broken: NodeJS.ErrnoException | undefined
    let closed = false
    socket.on('error', (error) => (broken = error)).on('close', () => (closed = true))
    await eventually(() => scope.invoker.seen.length === 1)
    await sleep(100)
    await scope.proxy.close()
    socket.resume()
    await eventually(() => closed)
    assert.equal(broken?.code, 'ECONNRESET')
  })
}

test('a body that came whole while it waited for memory leaves none behind on its connection', async () => {
  const budget = new BodyBudget(128 * 1024 * 1024)
  await using scope = await httpProxyScope({ budget })
  const all = await Promise.all(Array.from({ length: 100 }, () => RawTcp.connect(scope.proxy.port)))
  const body = Buffer.alloc(12_000, 'x')
  const request = Buffer.concat([
    Buffer.from('POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 12000\r\n\r\n'),
    body,
  ])
  const answered = (times: number) => () =>
    all.every(({ text }) => text.split('HTTP/1.1 200').length > times)
  for (const raw of all) raw.write(request)
  await eventually(answered(1))
  const heldBytes = (): number => {
    scope.invoker.seen.length = 0
    blocks.drop()
    collectGarbage()
    return process.memoryUsage().arrayBuffers
  }
  const before = heldBytes()
  budget.force(budget.bytesMax)
  for (const raw of all) raw.write(request)
  await eventually(() => scope.proxy.inFlight === all.length)
  await sleep(200)
  budget.give(budget.bytesMax)
  await eventually(answered(2))
  await eventually(() => budget.bytes === 0)
  await eventually(() => {
    const left = heldBytes() - before
    assert.ok(left < 400_000, `${left} bytes are left`)
    return true
  })
  for (const raw of all) raw[Symbol.dispose]()
})
