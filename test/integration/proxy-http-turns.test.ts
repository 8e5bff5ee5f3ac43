import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BodyBudget } from '#agent/sockets/index.ts'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { patterned } from '#test/invoker.ts'
import { RawTcp } from '#test/raw-tcp.ts'

// Bodies under way have so much memory and no more: callers take turns.

test('bodies that are announced and never come take neither memory nor the turn of others', async () => {
  const budget = new BodyBudget(4 * 1024 * 1024)
  await using scope = await httpProxyScope({ budget, connectionsMax: 2_000, headerTimeoutMs: 400 })
  const all = await Promise.all(Array.from({ length: 300 }, () => RawTcp.connect(scope.proxy.port)))
  const before = process.memoryUsage().arrayBuffers
  for (const raw of all) {
    raw.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n!')
  }
  await eventually(() => budget.short)
  const took = process.memoryUsage().arrayBuffers - before
  assert.ok(took < 20 * 1024 * 1024, `${took} bytes`)
  const body = patterned(65_536)
  const answer = await fetch(scope.url('/echo'), { method: 'POST', body })
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(body))
  const refusal = (await all[0]?.until(/\}$/)) ?? ''
  assert.match(refusal, /^HTTP\/1\.1 503 .*retry-after: 1\r\n.*FUNCTION_UNAVAILABLE/s)
  for (const raw of all) raw[Symbol.dispose]()
  await eventually(() => scope.proxy.inFlight === 0, { timeoutMs: 60_000 })
  assert.equal(budget.bytes, 0)
})

test('more bodies than there is memory for: callers take turns, and each gets its own answer', async () => {
  const budget = new BodyBudget(1024 * 1024)
  await using scope = await httpProxyScope({ budget })
  const rows = Array.from({ length: 60 }, (_, n) => patterned(n % 2 === 0 ? 65_536 : 400_000 + n))
  let most = 0
  const watch = setInterval(() => (most = Math.max(most, budget.bytes)), 1)
  await Promise.all(
    rows.map(async (body) => {
      const answer = await fetch(scope.url('/echo'), { method: 'POST', body })
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(body))
    }),
  )
  clearInterval(watch)
  assert.ok(most > 512 * 1024, `${most} bytes`)
  await eventually(() => budget.bytes === 0)
})

test('bodies that wait their turn wait with their callers, also those of a connection that has had calls', async () => {
  const budget = new BodyBudget(64 * 1024)
  await using scope = await httpProxyScope({ budget, connectionsMax: 2_000 })
  const all = await Promise.all(Array.from({ length: 300 }, () => RawTcp.connect(scope.proxy.port)))
  for (const raw of all) raw.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi')
  await Promise.all(all.map((raw) => raw.until(/hi$/)))
  const before = process.memoryUsage().arrayBuffers
  budget.force(64 * 1024)
  const body = Buffer.alloc(65_536, 'x')
  for (const raw of all) {
    raw.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n')
    raw.write(body)
  }
  await eventually(() => scope.proxy.inFlight === all.length)
  const took = process.memoryUsage().arrayBuffers - before
  budget.give(64 * 1024)
  assert.ok(took < 6 * 1024 * 1024, `${took} bytes`)
  await eventually(() => all.every(({ text }) => text.length > body.length), { timeoutMs: 10_000 })
  assert.ok(all.every(({ text }) => text.endsWith(`\r\n\r\n${body.toString()}`)))
  for (const raw of all) raw[Symbol.dispose]()
  await eventually(() => budget.bytes === 0)
})

test('a body that came whole while it waited for its turn leaves its connection open for the next request', async () => {
  const budget = new BodyBudget(4 * 1024 * 1024)
  await using scope = await httpProxyScope({ budget })
  using raw = await RawTcp.connect(scope.proxy.port)
  budget.force(budget.bytesMax)
  // More than a stream takes at once, and no more than comes with one read.
  const body = Buffer.alloc(70_000, 'x')
  raw.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n')
  await eventually(() => scope.proxy.inFlight === 1)
  raw.write(body)
  await eventually(() => raw.socket.writableLength === 0)
  await sleep(100)
  budget.give(budget.bytesMax)
  await raw.until(/x{70000}$/)
  raw.write('POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnext')
  await raw.until(/next$/, 3_000)
})

test('silent streams leave room for bodies, also streams that were asked for with a body in chunks', async () => {
  const budget = new BodyBudget(8 * 1024 * 1024)
  await using scope = await httpProxyScope({ budget })
  const events = '/events?count=1&then=wait HTTP/1.1\r\nHost: x\r\n'
  for (const request of [
    `GET ${events}\r\n`,
    `POST ${events}Content-Length: 2\r\n\r\nhi`,
    `POST ${events}Content-Length: 100000\r\n\r\n${'x'.repeat(100_000)}`,
    `POST ${events}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n`,
  ]) {
    const all: RawTcp[] = []
    for (let count = 0; count < 40; count += 1) {
      const raw = await RawTcp.connect(scope.proxy.port)
      all.push(raw)
      raw.write(request)
      await raw.until(/data: /, 10_000)
    }
    const answer = await fetch(scope.url('/echo'), {
      method: 'POST',
      body: 'hi',
      signal: AbortSignal.timeout(10_000),
    })
    assert.equal(await answer.text(), 'hi')
    for (const raw of all) raw[Symbol.dispose]()
    await eventually(() => budget.bytes === 0)
  }
})

test('a stream whose caller takes nothing counts as all that it may hold, until the caller goes on or goes', async () => {
  const budget = new BodyBudget(8 * 1024 * 1024)
  await using scope = await httpProxyScope({ budget })
  for (const request of [
    'GET /pieces?count=400&bytes=65536 HTTP/1.1\r\nHost: x\r\n\r\n',
    'POST /pieces?count=400&bytes=65536 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi',
  ]) {
    using slow = await RawTcp.connect(scope.proxy.port)
    slow.socket.pause()
    slow.write(request)
    const held = await eventually(() => budget.bytes > 256 * 1024 && budget.bytes)
    assert.ok(held < 1024 * 1024, `${held} bytes`)
    slow.socket.resume()
    await slow.until(/\r\n0\r\n\r\n$/, 60_000)
    await eventually(() => budget.bytes === 0)
    slow.socket.pause()
    slow.write(request)
    await eventually(() => budget.bytes > 256 * 1024)
    slow[Symbol.dispose]()
    await eventually(() => budget.bytes === 0)
  }
})

test('a caller that waits for 100 Continue waits for its turn like any other', async () => {
  const budget = new BodyBudget(4 * 1024 * 1024)
  // The sweep is as quick as the shortest of the times.
  await using scope = await httpProxyScope({ budget, headerTimeoutMs: 400 })
  budget.force(budget.bytesMax)
  using raw = await RawTcp.connect(scope.proxy.port)
  const head = 'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n'
  raw.write(`${head}Expect: 100-continue\r\n\r\n`)
  await sleep(1_500)
  assert.equal(raw.text, '')
  budget.give(budget.bytesMax)
  await raw.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  raw.write('hi')
  await raw.until(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n.*hi$/s)
  // And has its turn only for as long as others do.
  budget.force(budget.bytesMax)
  using silent = await RawTcp.connect(scope.proxy.port)
  silent.write(`${head}Expect: 100-continue\r\n\r\n`)
  await silent.until(/^HTTP\/1\.1 503 .*FUNCTION_UNAVAILABLE/s, 15_000)
  budget.give(budget.bytesMax)
})

test('a caller that has sent all and ended its side is not asked for its body once its answer has begun', async () => {
  const budget = new BodyBudget(4 * 1024 * 1024)
  await using scope = await httpProxyScope({ budget })
  budget.force(budget.bytesMax)
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.socket.allowHalfOpen = true
  raw.socket.end(
    'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi',
  )
  await raw.until(/^HT/)
  budget.give(budget.bytesMax)
  const text = await raw.rest()
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n.*hi$/s)
})
