import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Packet, ParsedPacket } from 'coap-packet'
import { coapProxyScope } from '#test/coap-proxy-scope.ts'
import { eventually } from '#test/eventually.ts'
import { produced } from '#test/invoker.ts'
import { block, optionNumber, optionValue, type RawCoap, uriPath } from '#test/raw-coap.ts'
import { OTHER_LOOPBACK } from '#test/loopback.ts'

const TOKEN = Buffer.from('observer')

/** A GET of `events` with the option Observe. */
function get(query: string, observe: number | undefined, more: Packet = {}): Packet {
  const value = observe === 0 ? Buffer.alloc(0) : Buffer.of(observe ?? 0)
  return {
    confirmable: true,
    token: TOKEN,
    ...more,
    code: 'GET',
    options: [
      ...(observe === undefined ? [] : [{ name: 'Observe' as const, value }]),
      ...uriPath('events'),
      ...query.split('&').map((part) => ({ name: 'Uri-Query' as const, value: Buffer.from(part) })),
      ...(more.options ?? []),
    ],
  }
}

const acknowledge = (client: RawCoap, { messageId }: ParsedPacket): void =>
  void client.send({ ack: true, code: '0.00', messageId, token: Buffer.alloc(0) })

const reset = (client: RawCoap, { messageId }: { readonly messageId: number }): void =>
  void client.send({ reset: true, code: '0.00', messageId, token: Buffer.alloc(0) })

/** Acknowledges what has to be. */
async function next(client: RawCoap): Promise<ParsedPacket> {
  const message = await client.receive()
  if (message.confirmable) acknowledge(client, message)
  return message
}

const sequence = (message: ParsedPacket): number | undefined => optionNumber(message, 'Observe')

test('each server-sent event is a notification, one when the other is acknowledged; the end has no Observe', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const before = produced.events
  client.send(get('count=40', 0))
  const first = await client.receive()
  assert.equal(first.ack, true)
  assert.equal(first.payload.toString(), '----0')
  assert.equal(optionNumber(first, 'Content-Format'), 0)
  assert.equal(optionNumber(first, 'Max-Age'), undefined, 'no-cache is not for observers')
  assert.deepEqual(scope.invoker.seen[0]?.invocation.headers, ['accept', 'text/event-stream'])
  const ids = new Set<number>()
  let last = sequence(first) ?? Number.NaN
  for (let index = 1; index < 40; index++) {
    const event = await client.receive()
    assert.equal(event.confirmable, true)
    assert.ok(event.token.equals(TOKEN))
    assert.equal(event.payload.toString(), String(index).padStart(5, '-'))
    assert.equal(sequence(event), (last + 1) & 0xff_ffff)
    last = (last + 1) & 0xff_ffff
    ids.add(event.messageId)
    // Nothing else is under way, and the function is not asked for more than its pipe holds.
    if (index === 20) await client.silence(50)
    assert.ok(produced.events - before <= index + 4, `${produced.events - before} at ${index}`)
    acknowledge(client, event)
  }
  assert.equal(ids.size, 39)
  const end = await next(client)
  assert.deepEqual([end.code, end.payload.length, end.options], ['2.05', 0, []])
  await eventually(() => scope.proxy.stats.observers === 0)
})

test('who registers without confirmation is notified so, but for a message now and then', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  client.send(get('count=40', 0, { confirmable: false }))
  const confirmed: number[] = []
  for (let index = 0; index < 40; index++) {
    const event = await next(client)
    assert.equal(event.payload.toString(), String(index).padStart(5, '-'))
    assert.equal(event.ack, false)
    if (event.confirmable) confirmed.push(index)
  }
  // The second one shows that the address is the client's, and how far away it is.
  assert.deepEqual(confirmed, [1, 17, 33])
  assert.equal(sequence(await next(client)), undefined)
})

const REFUSALS: readonly {
  readonly name: string
  /** Short only where its end is waited for: else a late answer of the test's would count as none. */
  readonly times?: { readonly ackTimeoutMs: number }
  readonly refuse: (client: RawCoap, event: ParsedPacket) => Promise<void> | void
}[] = [
  { name: 'a Reset', refuse: reset },
  {
    name: 'a GET with Observe 1, which gets the newest event',
    refuse: async (client, event) => {
      acknowledge(client, event)
      client.send(get('then=wait', 1))
      const answer = await client.receive()
      assert.equal(answer.payload.toString(), event.payload.toString())
      assert.equal(sequence(answer), undefined)
    },
  },
  { name: 'no acknowledgement', times: { ackTimeoutMs: 20 }, refuse: () => undefined },
]

for (const { name, times, refuse } of REFUSALS) {
  // In less time than it takes until an event counts as not acknowledged.
  test(
    `an observation ends, and the call is cancelled, by ${name}`,
    { timeout: 30_000 },
    async () => {
      await using scope = await coapProxyScope(times)
      const client = await scope.client()
      client.send(get('count=2&then=wait', 0))
      await client.receive()
      const event = await client.receive()
      assert.equal(scope.invoker.seen[0]?.signal?.aborted, false)
      await refuse(client, event)
      await scope.invoker.aborted()
      assert.equal(scope.invoker.seen.length, 1)
      assert.equal(scope.proxy.stats.observers, 0)
    },
  )
}

test('a Reset of a notification that is not confirmable ends it as well, and one of before its first event', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 50 })
  const client = await scope.client()
  client.send(get('count=1&then=wait', 0, { confirmable: false }))
  reset(client, await client.receive())
  await scope.invoker.aborted()
  const messageId = client.send(get('count=0&then=wait', 0))
  assert.equal((await client.receive()).code, '0.00')
  assert.equal(scope.proxy.stats.observers, 1)
  reset(client, { messageId })
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.stats.inFlight === 0)
  assert.equal(scope.proxy.stats.observers, 0)
})

test('answers that are no event stream, other methods, and GETs without Observe are answered as ever', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const observe = { name: 'Observe' as const, value: Buffer.alloc(0) }
  for (const [code, path] of [
    ['GET', 'pieces'],
    ['GET', 'bytes'],
    ['POST', 'events'],
  ] as const) {
    const answer = await client.ask({ code, options: [observe, ...uriPath(path)] })
    assert.equal(answer.code, '2.05')
    assert.equal(sequence(answer), undefined)
  }
  const whole = await client.ask(get('count=2', undefined))
  assert.match(whole.payload.toString(), /^: a comment\nid: 0\ndata: ----0\n\n/)
  assert.equal(scope.proxy.stats.observers, 0)
})

test('an event larger than a block comes in blocks, and the next one when they have been fetched', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const size = { name: 'Block2' as const, value: block(0, false, 2) }
  client.send(get('count=2&bytes=150', 0, { options: [size] }))
  for (let index = 0; index < 2; index++) {
    const parts = [await next(client)]
    assert.equal(optionNumber(parts[0] ?? assert.fail(), 'Block2'), 8 + 2)
    await client.silence(30)
    for (const num of [1, 2]) {
      const options = [{ name: 'Block2' as const, value: block(num, false, 2) }]
      // A client may leave Observe in.
      parts.push(await client.ask(get('count=2&bytes=150', num === 1 ? 0 : undefined, { options })))
    }
    const tags = new Set(parts.map((part) => optionValue(part, 'ETag')?.toString('hex')))
    assert.equal(tags.size, 1)
    const payload = Buffer.concat(parts.map((part) => part.payload)).toString()
    assert.equal(payload, String(index).padStart(150, '-'))
  }
  assert.equal(sequence(await next(client)), undefined)
})

test('a stream that breaks off is told as the fault, without Observe', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  client.send(get('count=1&then=fail', 0))
  assert.notEqual(sequence(await next(client)), undefined)
  const end = await next(client)
  assert.equal(end.code, '5.02')
  assert.equal(sequence(end), undefined)
  const large = await client.ask(get('count=1&bytes=70000', 0))
  assert.equal(large.payload.toString().split(':')[0], 'FUNCTION_OUTPUT_TOO_LARGE')
})

test('a second registration with the same token gets the newest event; the function is not called again', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  client.send(get('count=3&then=wait', 0))
  const first = await client.receive()
  const second = await client.receive()
  client.send(get('count=3&then=wait', 0))
  const again = await client.receive()
  acknowledge(client, second)
  const third = await next(client)
  const payloads = [first, second, again, third].map(({ payload }) => payload.toString())
  assert.deepEqual(payloads, ['----0', '----1', '----1', '----2'])
  // Else the client would take what comes after it for old.
  const from = sequence(first) ?? Number.NaN
  const sequences = [second, again, third].map((event) => (sequence(event) ?? 0) - from)
  assert.deepEqual(sequences, [1, 2, 3])
  assert.equal(scope.invoker.seen.length, 1)
  // Something else with the same token takes its place.
  client.send(get('count=1&bytes=6&then=wait', 0))
  assert.equal((await client.receive()).payload.toString(), '-----0')
  assert.equal(scope.invoker.seen[0]?.signal?.aborted, true)
  assert.equal(scope.proxy.stats.observers, 1)
})

/** Asks for an event in blocks; its payload, once it is whole. */
async function eventInBlocks(client: RawCoap, query: string, observe: number): Promise<string> {
  const parts = [await client.ask(get(query, observe))]
  assert.equal(parts[0]?.code, '2.05')
  assert.equal(sequence(parts[0] ?? assert.fail()) !== undefined, observe === 0)
  for (
    let num = 1;
    ((optionNumber(parts.at(-1) ?? assert.fail(), 'Block2') ?? 0) & 8) !== 0;
    num++
  ) {
    const options = [{ name: 'Block2' as const, value: block(num, false, 6) }]
    parts.push(await client.ask(get(query, undefined, { options })))
  }
  const tags = new Set(parts.map((part) => optionValue(part, 'ETag')?.toString('hex')))
  assert.equal(tags.size, 1)
  return Buffer.concat(parts.map(({ payload }) => payload)).toString()
}

test('an event in several blocks answers a second registration and the end of one as well', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const query = 'count=1&bytes=2000&then=wait'
  const event = '0'.padStart(2_000, '-')
  for (const observe of [0, 0, 1]) {
    assert.ok((await eventInBlocks(client, query, observe)) === event, String(observe))
    assert.equal(scope.invoker.seen.length, 1)
  }
  assert.equal((await scope.invoker.aborted()).aborted, true)
  assert.equal(scope.proxy.stats.observers, 0)
})

test('of large events as many are kept as there is memory for; whose is not registers as if for the first time', async () => {
  // A part of the node so small that there is room for one event.
  await using scope = await coapProxyScope({ processes: 512, observersMax: 8 })
  const [first, second] = [await scope.client(), await scope.client()]
  const query = 'count=1&bytes=20000&then=wait'
  const event = '0'.padStart(20_000, '-')
  for (const client of [first, second, second, first]) {
    assert.ok((await eventInBlocks(client, query, 0)) === event)
  }
  assert.equal(scope.invoker.seen.length, 3)
  assert.equal(scope.invoker.seen[0]?.signal?.aborted, true)
  assert.equal(scope.proxy.stats.observers, 2)
  const end = await second.ask(get(query, 1))
  assert.equal(end.code, '5.03', 'not an empty event')
  assert.equal(scope.proxy.stats.observers, 1)
})

test('more observers than allowed, of all or of one address, are told 4.29 with a time, and their calls are cancelled', async () => {
  await using scope = await coapProxyScope({ observersMax: 3, observersPerAddressMax: 2 })
  const ask = async (host: string) => {
    const client = await scope.client(host)
    return client.ask(get('count=1&then=wait', 0))
  }
  const codes = []
  for (const host of ['127.0.0.1', '127.0.0.1', '127.0.0.1', OTHER_LOOPBACK, OTHER_LOOPBACK]) {
    const answer = await ask(host)
    codes.push(answer.code)
    if (answer.code === '4.29') assert.equal(optionNumber(answer, 'Max-Age'), 10)
  }
  assert.deepEqual(codes, ['2.05', '2.05', '4.29', '2.05', '4.29'])
  assert.equal(scope.proxy.stats.observers, 3)
})

test('what a registration has sent counts among the bodies of calls until its observation is over', async () => {
  await using scope = await coapProxyScope({ inFlightBytesMax: 100_000 })
  const clients = await Promise.all(Array.from({ length: 3 }, () => scope.client()))
  const registration = get('count=1&then=wait', 0, { payload: Buffer.alloc(40_000) })
  const codes: string[] = []
  for (const client of clients) codes.push((await client.ask(registration)).code)
  assert.deepEqual(codes, ['2.05', '2.05', '4.29'])
  assert.equal(scope.proxy.stats.inFlightBytes, 80_000)
  for (const client of clients.slice(0, 2)) {
    assert.equal((await client.ask(get('count=1&then=wait', 1))).code, '2.05')
  }
  await eventually(() => scope.proxy.stats.inFlightBytes === 0)
})

test('a registration has no large body', async () => {
  await using scope = await coapProxyScope({ bodyBytesMax: 1024 * 1024 })
  const client = await scope.client()
  let code = '2.31'
  for (let num = 0; code === '2.31'; num += 1) {
    const options = [{ name: 'Block1' as const, value: block(num, num < 70, 6) }]
    code = (await client.ask(get('count=1', 0, { payload: Buffer.alloc(1_024), options }))).code
  }
  assert.equal(code, '4.13')
  assert.deepEqual([scope.invoker.seen.length, scope.proxy.stats.inFlightBytes], [0, 0])
})

test('a node that stops waits for observations as for calls, then ends them with 5.03', async () => {
  await using scope = await coapProxyScope()
  const [short, long] = [await scope.client(), await scope.client()]
  short.send(get('count=2&ms=50', 0))
  long.send(get('count=1&then=wait', 0))
  await short.receive()
  await long.receive()
  const closed = scope.proxy.close(3_000)
  assert.equal((await next(short)).payload.toString(), '----1')
  assert.equal(sequence(await next(short)), undefined)
  await closed
  const end = await long.receive()
  assert.equal(end.code, '5.03')
  assert.equal(sequence(end), undefined)
  assert.equal((await scope.invoker.aborted()).aborted, true)
})
