import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import type { Metadata } from '@grpc/grpc-js'
import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
import { Fault, FAULTS } from '#shared/fault.ts'
import { eventually } from '#test/eventually.ts'
import { type GrpcAnswer, grpcProxyScope, type GrpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { patterned, produced } from '#test/invoker.ts'
import { LOOPBACKS, urlHost } from '#test/loopback.ts'

const functions = (scope: GrpcProxyScope, host?: string) =>
  scope.client('shoal.proto', 'shoal.v1.Functions', host)
const tinyfaas = (scope: GrpcProxyScope) =>
  scope.client('tinyfaas.proto', 'openfogstack.tinyfaas.tinyfaas.TinyFaaS')

test('tinyFaaS: a string to the function and back, with its metadata as header fields', async () => {
  await using scope = await grpcProxyScope()
  const client = tinyfaas(scope)
  const echo = await client.unary('Request', { functionIdentifier: 'echo', data: 'grüezi' })
  assert.deepEqual({ ...echo }, { response: 'grüezi' })
  const options = { metadata: { lab: 'fish' } }
  const inspect = await client.unary('Request', { functionIdentifier: '/inspect' }, options)
  const told: { method: string; headers: string[] } = JSON.parse(inspect.response)
  assert.equal(told.method, 'POST')
  const field = (name: string) => told.headers[told.headers.indexOf(name) + 1]
  assert.equal(field('lab'), 'fish')
  assert.match(String(field('user-agent')), /^grpc-node/)
  assert.equal(field('content-type'), 'application/grpc')
  assert.equal(field('authority'), `127.0.0.1:${scope.proxy.port}`)
  assert.ok(told.headers.every((name, at) => at % 2 === 1 || !/^:|^grpc-/.test(name)))
})

test('tinyFaaS: failures are UNKNOWN with its texts, a status of the function is dropped, and bytes that are no text INTERNAL', async () => {
  await using scope = await grpcProxyScope()
  const client = tinyfaas(scope)
  const unknown = await client.failure('Request', { functionIdentifier: 'nobody' })
  assert.deepEqual([unknown.code, unknown.details], [2, 'function nobody not found'])
  const failed = await client.failure('Request', { functionIdentifier: 'fault' })
  assert.deepEqual([failed.code, failed.details], [2, 'error calling function fault'])
  assert.deepEqual(failed.trailer.get('shoal-code'), ['INTERNAL'])
  assert.deepEqual(
    { ...(await client.unary('Request', { functionIdentifier: 'status' })) },
    { response: '' },
  )
  const bytes = await client.failure('Request', { functionIdentifier: 'bytes' })
  assert.deepEqual([bytes.code, bytes.details], [13, 'string field contains invalid UTF-8'])
})

test('Invoke: bytes, method, path, query, metadata and content type both ways, on IPv4 and IPv6', async () => {
  await using scope = await grpcProxyScope()
  for (const host of LOOPBACKS.map(urlHost)) {
    const client = functions(scope, host)
    const payload = patterned(100_000)
    const echo = await client.unary('Invoke', { function: 'site/a/b/echo', payload })
    assert.ok(payload.equals(echo.payload))
    assert.equal(echo.status, 200)
    assert.equal(echo.contentType, 'application/octet-stream')
    const answer = await client.unary(
      'Invoke',
      {
        function: 'inspect',
        payload: Buffer.from('b'),
        method: 'put',
        path: '/a/b',
        query: 'x=1',
        contentType: 'text/csv',
        metadata: { 'X-Lab': 'inner' },
      },
      {
        metadata: {
          'x-lab': 'outer',
          'x-other': 'o',
          'x-bin': Buffer.from([1, 2]),
          'x-request-id': 'mine',
        },
      },
    )
    assert.equal(answer.contentType, 'application/json')
    const told: Record<string, unknown> & { headers: string[] } = JSON.parse(String(answer.payload))
    const { fn, method, path, query, protocol, requestId, body, headers } = told
    assert.deepEqual(
      { fn, method, path, query, protocol, requestId, body },
      {
        fn: 'inspect',
        method: 'PUT',
        path: '/a/b',
        query: 'x=1',
        protocol: 'grpc',
        requestId: 'mine',
        body: 'b',
      },
    )
    const values = (name: string) =>
      headers.filter((_, at) => at % 2 === 1 && headers[at - 1] === name)
    assert.deepEqual(values('x-lab'), ['inner'])
    assert.deepEqual(values('x-other'), ['o'])
    assert.deepEqual(values('x-bin'), ['AQI='])
    assert.deepEqual(values('content-type'), ['text/csv'])
  }
})

test('Invoke: the status and header fields of the function are the answer, not an error', async () => {
  await using scope = await grpcProxyScope()
  const query = 'status=404&body=no&header=x-a=1&header=x-a=2&header=content-length=99'
  const answer = await functions(scope).unary('Invoke', { function: 'status', query })
  assert.equal(answer.status, 404)
  assert.equal(String(answer.payload), 'no')
  assert.deepEqual({ ...answer.metadata }, { 'x-a': '1, 2' })
  assert.equal(answer.contentType, 'text/plain; charset=utf-8')
})

test('every fault ends the call with its gRPC code and tells code, retry and time in the trailing metadata', async () => {
  await using scope = await grpcProxyScope()
  const client = functions(scope)
  for (const [code, { grpc, retry }] of Object.entries(FAULTS)) {
    const ended = await client.failure('Invoke', {
      function: 'fault',
      query: `code=${code}&retryAfterMs=1500`,
    })
    assert.equal(ended.code, grpc, code)
    assert.deepEqual(ended.trailer.get('shoal-code'), [code])
    assert.deepEqual(ended.trailer.get('shoal-retry'), [String(retry)])
    assert.deepEqual(ended.trailer.get('retry-after-ms'), ['1500'])
  }
  const bug = await client.failure('Invoke', { function: 'fault', query: 'code=nonsense' })
  assert.equal(bug.code, 13)
  assert.doesNotMatch(bug.details, /secret/)
  const unknown = await client.failure('Invoke', { function: 'nobody' })
  assert.equal(unknown.code, 5)
  assert.deepEqual(unknown.trailer.get('retry-after-ms'), [])
})

test('fields that cannot be passed on are refused', async () => {
  await using scope = await grpcProxyScope()
  const client = functions(scope)
  const rows: object[] = [
    { method: 'GET\nX' },
    { path: 'no-slash' },
    { path: '/a\nb' },
    { path: '/a b' },
    { query: 'a\nb' },
    { contentType: 'a/b\r\nx: y' },
    { metadata: { 'a b': 'c' } },
    { metadata: { a: 'b\nc' } },
  ]
  for (const row of rows) {
    const ended = await client.failure('Invoke', { function: 'inspect', ...row })
    assert.equal(ended.code, 3, JSON.stringify(row))
    assert.deepEqual(ended.trailer.get('shoal-code'), ['REQUEST_INVALID'])
  }
  assert.equal(scope.invoker.seen.length, 0)
})

test('the deadline of the call and the one in the message reach the function, the earlier one wins; cancelling aborts it', async () => {
  await using scope = await grpcProxyScope()
  const client = functions(scope)
  const deadlineMs = async (inMessage: number, ofCall?: number) => {
    const options = ofCall === undefined ? {} : { deadlineMs: ofCall }
    await client.unary('Invoke', { function: 'echo', deadlineMs: inMessage }, options)
    return scope.invoker.seen.at(-1)?.invocation.deadlineMs
  }
  assert.equal(await deadlineMs(0), undefined)
  assert.equal(await deadlineMs(700), 700)
  assert.equal(await deadlineMs(700, 60_000), 700)
  const ofCall = await deadlineMs(60_000, 9_000)
  assert.ok(ofCall !== undefined && ofCall <= 9_001 && ofCall > 5_000, String(ofCall))

  const late = client.failure(
    'Invoke',
    { function: 'slow', query: 'ms=60000' },
    { deadlineMs: 2_000 },
  )
  await eventually(() => scope.invoker.running === 1)
  assert.equal((await late).code, 4)
  await scope.invoker.aborted()

  const stream = client.stream('InvokeStream', { function: 'pieces', query: 'count=100000&ms=5' })
  await assert.rejects(
    async () => {
      for await (const chunk of stream) if (chunk) stream.cancel()
    },
    { code: 1 },
  )
  await scope.invoker.aborted()
  await eventually(() => scope.proxy.inFlight === 0)
})

test('payloads up to the limit pass both ways, above it they are refused', async () => {
  await using scope = await grpcProxyScope({ bodyBytesMax: 500_000 })
  const client = functions(scope)
  const payload = patterned(500_000)
  assert.ok(payload.equals((await client.unary('Invoke', { function: 'echo', payload })).payload))
  const above = await client.failure('Invoke', { function: 'echo', payload: patterned(500_001) })
  assert.equal(above.code, 8)
  assert.deepEqual(above.trailer.get('shoal-code'), ['BODY_TOO_LARGE'])
  const far = await client.failure('Invoke', { function: 'echo', payload: patterned(600_000) })
  assert.equal(far.code, 8)
  for (const request of [
    { function: 'bytes', query: 'bytes=500001' },
    { function: 'pieces', query: 'bytes=50000&count=11' },
  ]) {
    const answer = await client.failure('Invoke', request)
    assert.deepEqual(answer.trailer.get('shoal-code'), ['FUNCTION_OUTPUT_TOO_LARGE'])
  }
  assert.equal(scope.invoker.seen.length, 3)
})

test('InvokeStream: chunks as they come, the first with status and metadata; an empty answer is one chunk; ten at once do not mix', async () => {
  await using scope = await grpcProxyScope({ bodyBytesMax: 1000 })
  const client = functions(scope)
  const collect = async (request: object) => {
    const chunks: GrpcAnswer[] = []
    for await (const chunk of client.stream('InvokeStream', request)) chunks.push(chunk)
    return chunks
  }
  const pieces = await collect({ function: 'pieces', query: 'count=3' })
  assert.deepEqual(
    pieces.map((chunk) => String(chunk.payload)),
    ['00000', '11111', '22222'],
  )
  assert.deepEqual(
    pieces.map((chunk) => chunk.status),
    [200, 0, 0],
  )
  assert.equal(pieces[0]?.contentType, 'text/plain; charset=utf-8')
  const empty = await collect({ function: 'status', query: 'status=201' })
  assert.deepEqual(
    empty.map((chunk) => chunk.status),
    [201],
  )
  const whole = await collect({ function: 'bytes', query: 'bytes=600000' })
  assert.ok(Buffer.concat(whole.map((chunk) => chunk.payload)).equals(patterned(600_000)))
  assert.ok(whole.length >= 3)
  const many = await Promise.all(
    Array.from({ length: 10 }, async (_, index) => {
      const count = 20 + index
      const chunks = await collect({ function: 'pieces', query: `count=${count}&bytes=3000&ms=1` })
      return chunks.length === count
    }),
  )
  assert.deepEqual(new Set(many), new Set([true]))
})

test('InvokeStream: an answer that breaks off ends with its fault; a slow reader makes the function wait', async () => {
  await using scope = await grpcProxyScope()
  const client = functions(scope)
  const broken = client.stream('InvokeStream', { function: 'pieces', query: 'fail=1' })
  let seen = 0
  await assert.rejects(
    async () => {
      for await (const chunk of broken) if (chunk) seen++
    },
    (error: { code: number; metadata: Metadata }) => {
      assert.equal(error.code, 14)
      assert.deepEqual(error.metadata.get('shoal-code'), ['FUNCTION_EXITED'])
      return true
    },
  )
  assert.equal(seen, 3)
  const before = produced.bytes
  const slow = client.stream('InvokeStream', {
    function: 'pieces',
    query: 'count=5000&bytes=65536',
  })
  const iterator = slow[Symbol.asyncIterator]()
  await iterator.next()
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.ok(produced.bytes - before < 30_000_000, `${produced.bytes - before} bytes of 327,680,000`)
  slow.cancel()
  await assert.rejects(async () => {
    for (;;) if ((await iterator.next()).done === true) break
  })
  await eventually(() => scope.proxy.inFlight === 0)
})

test('a port that is taken is named, with the setting that changes it', async () => {
  const other = createServer().listen(0, '::')
  await once(other, 'listening')
  const address = other.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  await assert.rejects(grpcProxyScope({ port }), (error: unknown) => {
    assert.ok(Fault.is(error, 'PORT_TAKEN'), String(error))
    assert.match(error.message, new RegExp(`port ${port} .*SHOAL_GRPC_PORT`))
    return true
  })
  other.close()
})

test('close: calls in flight finish, new ones are UNAVAILABLE, what is not done in time is cancelled, and the port is free again', async () => {
  await using scope = await grpcProxyScope()
  const client = functions(scope)
  const done = client.unary('Invoke', { function: 'slow', query: 'ms=1000' })
  const late = client.failure('Invoke', { function: 'slow', query: 'ms=60000' })
  await eventually(() => scope.invoker.running === 2)
  const { port } = scope.proxy
  const startedMs = performance.now()
  const closed = scope.proxy.close(4_000)
  const refused = await client.failure('Invoke', { function: 'echo' }, { deadlineMs: 300 })
  assert.ok([4, 14].includes(refused.code), `${refused.code} ${refused.details}`)
  assert.equal(String((await done)['payload']), 'slept')
  assert.equal((await late).code, 14)
  await closed
  assert.ok(performance.now() - startedMs < 30_000)
  await scope.invoker.aborted()
  const again = await GrpcProxy.listen({
    host: '::',
    port,
    invoker: scope.invoker,
    bodyBytesMax: 1000,
    log: scope.log,
  })
  await again.close()
})
