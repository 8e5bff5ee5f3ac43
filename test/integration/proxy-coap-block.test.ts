import assert from 'node:assert/strict'
import { test } from 'node:test'
import { coapProxyScope } from '#test/coap-proxy-scope.ts'
import { patterned } from '#test/invoker.ts'
import { block, optionNumber, optionValue, type RawCoap, uriPath } from '#test/raw-coap.ts'
import { OTHER_LOOPBACK } from '#test/loopback.ts'

/** Sends a body in blocks; returns the last answer. */
async function upload(client: RawCoap, path: string, body: Buffer, szx: number) {
  const size = 2 ** (szx + 4)
  for (let num = 0; ; num++) {
    const payload = body.subarray(num * size, (num + 1) * size)
    const more = (num + 1) * size < body.length
    const options = [...uriPath(path), { name: 'Block1' as const, value: block(num, more, szx) }]
    const answer = await client.ask({ code: 'POST', payload, options })
    if (!more || answer.code !== '2.31') return answer
    assert.equal(optionNumber(answer, 'Block1'), num * 16 + 8 + szx)
    assert.equal(answer.payload.length, 0)
  }
}

/** Fetches the rest of an answer that came in blocks. */
async function download(client: RawCoap, path: string, first: Awaited<ReturnType<RawCoap['ask']>>) {
  const parts = [first.payload]
  const tag = optionValue(first, 'ETag')?.toString('hex')
  for (let answer = first; ;) {
    const bits = optionNumber(answer, 'Block2')
    if (bits === undefined || (bits & 8) === 0) return Buffer.concat(parts)
    const szx = bits & 7
    const options = [
      ...uriPath(path),
      { name: 'Block2' as const, value: block((bits >> 4) + 1, false, szx) },
    ]
    answer = await client.ask({ code: 'POST', options })
    assert.equal(answer.code, '2.05')
    assert.equal(optionValue(answer, 'ETag')?.toString('hex'), tag)
    parts.push(answer.payload)
  }
}

test('bodies in blocks of every size reach the function once and whole, and long answers come back in blocks', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  for (const [szx, bytes] of [
    [0, 33],
    [2, 1000],
    [5, 5000],
    [6, 1024],
    [6, 1025],
    [6, 50_001],
  ] as const) {
    const body = patterned(bytes)
    const before = scope.invoker.seen.length
    const answer = await upload(client, 'echo', body, szx)
    assert.equal(answer.code, '2.05')
    const last = Math.ceil(bytes / 2 ** (szx + 4)) - 1
    assert.equal(optionNumber(answer, 'Block1'), last * 16 + szx, 'the last block is acknowledged')
    assert.ok((await download(client, 'echo', answer)).equals(body), `${bytes} bytes`)
    assert.equal(scope.invoker.seen.length, before + 1)
  }
})

test('an answer above 1,024 bytes comes in blocks with its size and a tag; a smaller block can be asked for from the start or later', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const query = { name: 'Uri-Query' as const, value: Buffer.from('bytes=3000') }
  const ask = (...value: Buffer[]) =>
    client.ask({
      code: 'GET',
      options: [
        ...uriPath('bytes'),
        query,
        ...value.map((bytes) => ({ name: 'Block2' as const, value: bytes })),
      ],
    })
  const first = await ask()
  assert.equal(optionNumber(first, 'Block2'), 8 + 6)
  assert.equal(optionNumber(first, 'Size2'), 3000)
  assert.equal(first.payload.length, 1024)
  assert.equal(optionValue(first, 'ETag')?.length, 4)
  // Blocks of 256 bytes from the second kibibyte on.
  const later = await ask(block(4, false, 4))
  assert.ok(later.payload.equals(patterned(3000).subarray(1024, 1280)))
  assert.equal(scope.invoker.seen.length, 1)
  const early = await ask(block(0, false, 2))
  assert.equal(early.payload.length, 64)
  assert.equal(optionNumber(early, 'Block2'), 8 + 2)
  assert.equal((await ask(block(400, false, 2))).code, '4.00', 'behind the end')
  const short = await client.ask({
    code: 'POST',
    payload: Buffer.from('x'),
    options: [...uriPath('echo'), { name: 'Block2', value: block(0, false, 2) }],
  })
  assert.equal(optionNumber(short, 'Block2'), 2)
  const stranger = await scope.client()
  const stolen = await stranger.ask({
    code: 'GET',
    options: [...uriPath('bytes'), query, { name: 'Block2', value: block(1, false, 6) }],
  })
  assert.equal(stolen.code, '4.08', "another peer's answer is not its own")
})

test('a missing block is 4.08, a short one 4.00, a body above the limit 4.13 with the limit, as early as it is known', async () => {
  await using scope = await coapProxyScope({ bodyBytesMax: 4096 })
  const client = await scope.client()
  const send = (num: number, more: boolean, bytes: number, size1?: number) =>
    client.ask({
      code: 'PUT',
      payload: Buffer.alloc(bytes, 'x'),
      options: [
        ...uriPath('echo'),
        { name: 'Block1', value: block(num, more, 6) },
        ...(size1 === undefined
          ? []
          : [
              {
                name: 'Size1' as const,
                value: Buffer.from([0, size1 >> 16, (size1 >> 8) & 255, size1 & 255]),
              },
            ]),
      ],
    })
  assert.equal((await send(0, true, 1024)).code, '2.31')
  assert.equal((await send(2, true, 1024)).code, '4.08')
  assert.equal((await send(1, true, 1000)).code, '4.00')
  assert.equal((await send(1, true, 1024)).code, '2.31')
  assert.equal((await send(2, true, 1024)).code, '2.31')
  assert.equal((await send(3, true, 1024)).code, '2.31')
  const large = await send(4, false, 1)
  assert.equal(large.code, '4.13')
  assert.equal(optionNumber(large, 'Size1'), 4096)
  assert.equal((await send(0, true, 1024, 5000)).code, '4.13')
  assert.equal((await send(3, false, 10)).code, '4.08', 'what was refused is forgotten')
  const oneDatagram = await client.ask({
    code: 'PUT',
    payload: Buffer.alloc(4097, 'x'),
    options: uriPath('echo'),
  })
  assert.equal(oneDatagram.code, '4.13')
  assert.equal(scope.invoker.seen.length, 0)
  assert.equal(scope.proxy.stats.blockwiseBytes, 0)
})

test('FETCH: later blocks are of the answer to the payload that is sent again, or, without one, of the newest; no call for them', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const ask = (num: number, payload: Buffer) => {
    const options = [
      ...uriPath('echo'),
      ...(num === 0 ? [] : [{ name: 'Block2' as const, value: block(num, false, 6) }]),
    ]
    return client.ask({ code: 'FETCH', payload, options })
  }
  const [a, b] = [Buffer.alloc(2_500, 'a'), Buffer.alloc(1_500, 'b')]
  const tagOf = async (num: number, payload: Buffer, expected: Buffer) => {
    const answer = await ask(num, payload)
    assert.equal(answer.code, '2.05', `${num} ${String(answer.payload)}`)
    assert.equal((optionNumber(answer, 'Block2') ?? 0) >> 4, num)
    assert.ok(answer.payload.equals(expected.subarray(num * 1024, (num + 1) * 1024)))
    return optionValue(answer, 'ETag')?.toString('hex')
  }
  const [tagA, tagB] = [await tagOf(0, a, a), await tagOf(0, b, b)]
  assert.notEqual(tagA, tagB)
  // Two at once, which a payload can tell apart.
  assert.equal(await tagOf(1, a, a), tagA)
  assert.equal(await tagOf(1, b, b), tagB)
  assert.equal(await tagOf(2, a, a), tagA)
  const nothing = Buffer.alloc(0)
  assert.equal(await tagOf(1, nothing, b), tagB)
  assert.equal(scope.invoker.seen.length, 2)
  assert.equal((await ask(2, b)).code, '4.00', 'behind its end')
  assert.equal((await ask(1, Buffer.from('of nobody'))).code, '4.08')
  assert.equal(scope.invoker.seen.length, 2)
})

test('an unknown function is 4.04 at the first block; two peers upload to one function at once without mixing', async () => {
  await using scope = await coapProxyScope()
  const first = await scope.client()
  const second = await scope.client()
  assert.equal((await upload(first, 'nobody', patterned(3000), 6)).code, '4.04')
  const bodies = [patterned(20_000), Buffer.alloc(20_000, 'b')] as const
  const [a, b] = await Promise.all([
    upload(first, 'echo', bodies[0], 6),
    upload(second, 'echo', bodies[1], 6),
  ])
  assert.ok((await download(first, 'echo', a)).equals(bodies[0]))
  assert.ok((await download(second, 'echo', b)).equals(bodies[1]))
})

test('unfinished transfers are bounded per peer and together, and forgotten after their time', async () => {
  let nowMs = 0
  await using scope = await coapProxyScope({ nowMs: () => nowMs })
  for (let peer = 0; peer < 5; peer++) {
    const client = await scope.client()
    for (let transfer = 0; transfer < 20; transfer++) {
      const options = [
        ...uriPath('echo'),
        { name: 'Uri-Query' as const, value: Buffer.from(String(transfer)) },
        { name: 'Block1' as const, value: block(0, true, 6) },
      ]
      await client.ask({ code: 'POST', payload: Buffer.alloc(1024), options })
    }
  }
  assert.ok(scope.proxy.stats.blockwiseBytes > 5 * 4 * 1024)
  assert.ok(
    scope.proxy.stats.blockwiseBytes <= 5 * 4 * 3000,
    String(scope.proxy.stats.blockwiseBytes),
  )
  const client = await scope.client()
  const options = [...uriPath('echo'), { name: 'Block1' as const, value: block(0, true, 6) }]
  await client.ask({ code: 'POST', payload: Buffer.alloc(1024), options })
  nowMs = 248_000
  const late = [...uriPath('echo'), { name: 'Block1' as const, value: block(1, false, 6) }]
  assert.equal(
    (await client.ask({ code: 'POST', payload: Buffer.alloc(9), options: late })).code,
    '4.08',
  )
})

test('a message id may be used again after its lifetime, and not before', async () => {
  let nowMs = 0
  await using scope = await coapProxyScope({ nowMs: () => nowMs })
  const client = await scope.client()
  const packet = {
    code: 'POST',
    payload: Buffer.from('x'),
    options: uriPath('inspect'),
    messageId: 7,
  }
  await client.ask(packet)
  nowMs = 246_000
  await client.ask(packet)
  assert.equal(scope.invoker.seen.length, 1)
  nowMs = 248_000
  await client.ask(packet)
  assert.equal(scope.invoker.seen.length, 2)
})

test('a flood of requests from many peers leaves the de-duplication within its bounds', async () => {
  await using scope = await coapProxyScope({ dedupEntriesMax: 500, dedupBytesMax: 300_000 })
  for (let peer = 0; peer < 20; peer++) {
    const client = await scope.client()
    for (let call = 0; call < 100; call++) {
      client.send({
        confirmable: true,
        code: 'POST',
        payload: Buffer.alloc(500),
        options: uriPath('echo'),
      })
      if (call % 20 === 19) for (let n = 0; n < 20; n++) await client.receive()
    }
    const { dedupEntries, dedupBytes } = scope.proxy.stats
    assert.ok(dedupEntries <= 500 && dedupBytes <= 300_000, `${dedupEntries} ${dedupBytes}`)
  }
  assert.equal(scope.invoker.seen.length, 2000)
})

test('a flood does not make the function run again for somebody else’s duplicate', async () => {
  await using scope = await coapProxyScope({ dedupEntriesMax: 100, ackDelayMs: 50 })
  const other = await scope.client(OTHER_LOOPBACK)
  const options = uriPath('echo')
  const done = { confirmable: true, code: 'POST', messageId: 1, options } as const
  const slow = [...uriPath('slow'), { name: 'Uri-Query' as const, value: Buffer.from('ms=60000') }]
  const working = { confirmable: true, code: 'POST', messageId: 2, options: slow } as const
  await other.ask(done)
  other.send(working)
  assert.equal((await other.receive()).code, '0.00')
  assert.equal(scope.invoker.seen.length, 2)

  for (let peer = 0; peer < 10; peer++) {
    const client = await scope.client()
    for (let call = 0; call < 30; call++) client.send({ confirmable: true, code: 'POST', options })
    for (let call = 0; call < 30; call++) await client.receive()
  }
  assert.equal(scope.invoker.seen.length, 302)
  assert.equal((await other.ask(done)).code, '2.05')
  other.send(working)
  assert.equal((await other.receive()).code, '0.00')
  assert.equal(scope.invoker.seen.length, 302)
  const { duplicates, dedupEvicted } = scope.proxy.stats
  assert.deepEqual([duplicates, dedupEvicted], [2, 250])
})

test('more requests at once than allowed are answered 4.29 with a time', async () => {
  await using scope = await coapProxyScope({ inFlightMax: 3 })
  const client = await scope.client()
  const query = { name: 'Uri-Query' as const, value: Buffer.from('ms=300') }
  for (let call = 0; call < 4; call++) {
    client.send({ confirmable: true, code: 'POST', options: [...uriPath('slow'), query] })
  }
  const refused = await client.receive()
  assert.equal(refused.code, '4.29')
  assert.equal(optionNumber(refused, 'Max-Age'), 1)
  for (let call = 0; call < 3; call++) assert.equal((await client.receive()).code, '2.05')
})
