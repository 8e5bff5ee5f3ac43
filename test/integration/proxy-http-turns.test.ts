import assert from 'node:assert/strict'
import { test } from 'node:test'
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
  await eventually(() => scope.proxy.inFlight === 0, { timeoutMs: 20_000 })
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
