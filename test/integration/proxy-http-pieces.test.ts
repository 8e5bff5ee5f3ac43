import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Outlet } from '#agent/proxy/http/outlet.ts'
import { collectGarbage } from '#test/collect-garbage.ts'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { RawTcp } from '#test/raw-tcp.ts'

// A body takes the memory that is counted for it, however small the pieces are that it comes in.

const KIB = 1024
const chunked = (target: string, more = '') =>
  `POST ${target} HTTP/1.1\r\nHost: x\r\n${more}Transfer-Encoding: chunked\r\n\r\n`
const TINY_CHUNKS = 16 * KIB
const tiny = Buffer.from('1\r\nx\r\n'.repeat(TINY_CHUNKS))

function memoryBytes(): number {
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

test('chunks of one byte: a body that nobody reads, and one that is gathered, take little more than their bytes', async () => {
  await using scope = await httpProxyScope({ bodyBytesMax: 8 * KIB * KIB })
  const rows = [
    ['warm', chunked('/slow?ms=60000'), 1, 8 * KIB * KIB],
    ['not read', chunked('/slow?ms=60000'), 8, 2 * KIB * KIB],
    ['gathered', chunked('/echo', 'X-tinyFaaS-Async: 1\r\n'), 16, 2 * KIB * KIB],
  ] as const
  for (const [name, head, times, bytesMax] of rows) {
    using raw = await RawTcp.connect(scope.proxy.port)
    const before = memoryBytes()
    raw.write(head)
    for (let sent = 0; sent < times; sent += 1) raw.write(tiny)
    await eventually(() => scope.proxy.inFlight === 1)
    await sleep(500)
    await eventually(() => {
      const took = memoryBytes() - before
      assert.ok(took < bytesMax, `${name}: ${took} bytes`)
      return true
    })
    raw[Symbol.dispose]()
    await eventually(() => scope.proxy.inFlight === 0)
  }
})

test('segments of one byte to a function that does not read them take little more than their bytes', async () => {
  await using scope = await httpProxyScope()
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.socket.setNoDelay(true)
  raw.write('POST /slow?ms=60000 HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n')
  await eventually(() => scope.proxy.inFlight === 1)
  const send = async (segments: number): Promise<void> => {
    for (let sent = 0; sent < segments; sent += 1) {
      raw.write('x')
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  await send(5_000)
  const before = memoryBytes()
  await send(20_000)
  const took = memoryBytes() - before
  assert.ok(took < 500 * KIB, `${took} bytes`)
  raw[Symbol.dispose]()
})

test('chunks of all sizes, gathered for the background or streamed: the body is whole', async () => {
  await using scope = await httpProxyScope()
  const sizes = [1, 1, 5_000, 2, 40_000, 1, 1, 1, 17_000, 3, 90_000, 1]
  const parts = sizes.map((bytes, index) => Buffer.alloc(bytes, index + 65))
  const wire = parts.flatMap((part) => [`${part.length.toString(16)};a=b\r\n`, part, '\r\n'])
  const body = Buffer.concat(parts).toString('latin1')
  const next = 'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nnext!'
  using raw = await RawTcp.connect(scope.proxy.port)
  const whole = Buffer.concat(
    [chunked('/echo', 'X-tinyFaaS-Async: 1\r\n'), ...wire, '0\r\n\r\n', next].map((part) =>
      Buffer.from(part),
    ),
  )
  raw.write(whole)
  await raw.until(/202 .*next!$/s)
  const accepted = scope.invoker.accepted.at(-1)?.body
  assert.ok(Buffer.isBuffer(accepted) && accepted.toString('latin1') === body)
  raw.text = ''
  raw.write(Buffer.from(whole.toString('latin1').replace('X-tinyFaaS-Async: 1\r\n', ''), 'latin1'))
  await raw.until(/next!$/s)
  assert.ok(raw.text.includes(`\r\n\r\n${body}HTTP/1.1 200 OK\r\n`))
})

test('an answer in pieces of one byte to a caller that takes nothing: few wait in its socket, and all come in the end', async () => {
  // With so much room that the count of pieces is what stops them.
  const server = createServer({ highWaterMark: 64 * KIB * KIB }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  using raw = await RawTcp.connect(port)
  raw.socket.pause()
  const socket = await accepted
  const full = Buffer.alloc(24 * KIB * KIB, ' ')
  socket.write(full)
  await sleep(200)
  const before = socket.writableLength
  assert.ok(before > 0 && !socket.writableNeedDrain)
  const body = new PassThrough({ highWaterMark: KIB * KIB })
  let behind = false
  let whole: boolean | undefined
  new Outlet(socket, 1_000).stream(
    { status: 200, lines: '', dated: true },
    true,
    body,
    true,
    (now) => (behind = now),
    (ended) => (whole = ended),
  )
  const pieces = 5_000
  for (let sent = 0; sent < pieces; sent += 1) {
    body.write('x')
    if (sent % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  body.end()
  await eventually(() => behind)
  const waiting = socket.writableLength - before
  assert.ok(waiting < 3_000, `${waiting} bytes wait`)
  raw.socket.resume()
  await eventually(() => whole)
  assert.equal(behind, false)
  const text = await raw.until(/\r\n0\r\n\r\n$/)
  assert.equal(text.split('1\r\nx\r\n').length, pieces + 1)
  socket.destroy()
  server.close()
})
