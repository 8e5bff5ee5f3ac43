import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BodyBudget } from '#agent/sockets/index.ts'
import { eventually } from '#test/eventually.ts'
import { httpProxyScope } from '#test/http-proxy-scope.ts'
import { RawTcp } from '#test/raw-tcp.ts'

// A connection that is not read from tells nothing of its peer: whether it is there must be found out another way.

const MIB = 1024 * 1024
const SLOW = '/slow?ms=60000 HTTP/1.1\r\nHost: x\r\n'
const UNREAD = Buffer.alloc(MIB, 'x')

test('a caller that leaves while nothing is read from it: its call is cancelled', async () => {
  await using scope = await httpProxyScope({ headerTimeoutMs: 400 })
  const rows: [string, (string | Buffer)[]][] = [
    ['another request behind', [`GET ${SLOW}\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n`]],
    ['a body not read', [`POST ${SLOW}Content-Length: ${MIB}\r\n\r\n`, UNREAD]],
    ['its chunks', [`POST ${SLOW}Transfer-Encoding: chunked\r\n\r\n100000\r\n`, UNREAD]],
    ['in a silent answer', ['GET /events?count=1&then=wait HTTP/1.1\r\nHost: x\r\n\r\n', 'GET /']],
  ]
  await Promise.all(
    rows.flatMap(([name, parts]) =>
      (['resetAndDestroy', 'destroy'] as const).map(async (leave) => {
        const raw = await RawTcp.connect(scope.proxy.port)
        for (const part of parts) {
          raw.write(part)
          await sleep(50)
        }
        await sleep(300)
        raw.socket[leave]()
        return `${name}, ${leave}`
      }),
    ),
  )
  assert.equal(scope.invoker.seen.length, 2 * rows.length)
  await eventually(() => scope.proxy.inFlight === 0, { timeoutMs: 9_000 })
  assert.ok(scope.invoker.seen.every(({ signal }) => signal?.aborted))
})

test('a caller that is asked whether it is there, and is, gets its answer as if it had not been', async () => {
  await using scope = await httpProxyScope({ headerTimeoutMs: 400 })
  using behind = await RawTcp.connect(scope.proxy.port)
  behind.write('GET /slow?ms=9000 HTTP/1.1\r\nHost: x\r\n\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n')
  using unread = await RawTcp.connect(scope.proxy.port)
  unread.write(`POST /slow?ms=9000 HTTP/1.1\r\nHost: x\r\nContent-Length: ${MIB}\r\n\r\n`)
  unread.write(UNREAD)
  const asked = /^HT*T?P?$/
  await Promise.all([behind.until(asked, 8_500), unread.until(asked, 8_500)])
  assert.match(
    await behind.until(/200 OK.*200 OK.*\r\n\r\n$/s),
    /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nsleptHTTP\/1\.1 200 OK\r\n/,
  )
  assert.match(await unread.until(/slept$/), /^HTTP\/1\.1 200 OK\r\n/)
  unread.write('GET /echo HTTP/1.1\r\nHost: x\r\n\r\n')
  await unread.until(/slept.*\r\n\r\n$/s)
})

test('100 Continue after a first byte of the answer: the same first bytes, sent once', async () => {
  const budget = new BodyBudget(4 * MIB)
  await using scope = await httpProxyScope({ budget, headerTimeoutMs: 400 })
  budget.force(budget.bytesMax)
  using raw = await RawTcp.connect(scope.proxy.port)
  raw.write(
    `POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: ${MIB}\r\nExpect: 100-continue\r\n\r\n`,
  )
  raw.write(UNREAD)
  await raw.until(/^HT*/, 6_000)
  budget.give(budget.bytesMax)
  const text = await raw.until(/x$/)
  assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
})
