import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { test } from 'node:test'
import { prepareHead } from '#agent/invoke/index.ts'
import { Fault } from '#shared/fault.ts'
import { coapProxyScope } from '#test/coap-proxy-scope.ts'
import { LOOPBACKS } from '#test/loopback.ts'
import { freePort } from '#test/ports.ts'
import { uriPath } from '#test/raw-coap.ts'

// What was read of a device's first requests serves its later ones.

const isTaken = (error: unknown): boolean => Fault.is(error, 'PORT_TAKEN')
const query = (text: string) => ({ name: 'Uri-Query' as const, value: Buffer.from(text) })

test('a request that comes again is told to the function as the first was, with its own body and id', async () => {
  await using scope = await coapProxyScope()
  const clients = await Promise.all(LOOPBACKS.map((host) => scope.client(host)))
  const ids = new Set<unknown>()
  for (let round = 0; round < 5; round++) {
    for (const client of clients) {
      for (const code of ['POST', 'PUT'] as const) {
        for (const device of ['a', 'b']) {
          const payload = Buffer.from(round % 2 === 0 ? `reading ${round}` : '')
          const options = [...uriPath('inspect/of'), query(`device=${device}`)]
          const answer = await client.ask({ code, payload, options })
          const { requestId, ...told } = JSON.parse(answer.payload.toString())
          ids.add(requestId)
          assert.deepEqual(told, {
            fn: 'inspect',
            method: code,
            path: '/of',
            query: `device=${device}`,
            headers: [],
            protocol: 'coap',
            body: payload.toString(),
          })
        }
      }
    }
  }
  const { seen } = scope.invoker
  assert.equal(ids.size, seen.length)
  const prepared = seen.filter(({ invocation }) => invocation.head !== undefined)
  // Each of four kinds is known from its second time on.
  assert.equal(prepared.length, seen.length - 4)
  for (const { invocation } of prepared) {
    assert.deepEqual(invocation.head, prepareHead(invocation))
  }
})

test('what a function answers with is told anew when it changes', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const types = ['application/json', 'text/plain', 'application/json', 'application/cbor']
  for (const type of [...types, ...types]) {
    for (const status of [200, 404]) {
      const options = [query(`status=${status}`), query(`header=content-type=${type}`)]
      const answer = await client.ask({ options: [...uriPath('status'), ...options] })
      assert.equal(answer.code, status === 200 ? '2.05' : '4.04')
      const format = answer.options.find(({ name }) => name === 'Content-Format')?.value
      const expected = { 'application/json': '50', 'text/plain': '0', 'application/cbor': '60' }
      assert.equal(
        String(parseInt(format?.toString('hex') || '0', 16)),
        Reflect.get(expected, type),
      )
    }
  }
})

test('a port that is taken for IPv4 alone is taken, and nothing stays open', async () => {
  const other = createSocket('udp4')
  other.bind(await freePort('udp'), '0.0.0.0')
  await once(other, 'listening')
  const { port } = other.address()
  await assert.rejects(coapProxyScope({ port }), isTaken)
  other.close()
  await once(other, 'close')
  await using scope = await coapProxyScope({ port })
  assert.equal(scope.proxy.port, port)
})
