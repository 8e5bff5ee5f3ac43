import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { type ObserveReadStream, type OutgoingMessage, request as coapRequest } from 'coap'
import * as fc from 'fast-check'
import { coapProxyScope } from '#test/coap-proxy-scope.ts'
import { eventually } from '#test/eventually.ts'
import { patterned } from '#test/invoker.ts'
import { uriPath } from '#test/raw-coap.ts'
import { ServedNode } from '#test/served-node.ts'
import { tempFolder } from '#test/temp.ts'
import { OTHER_LOOPBACK, urlHost } from '#test/loopback.ts'

const run = promisify(execFile)

/** libcoap's client. */
async function libcoap(args: readonly string[]): Promise<Buffer> {
  const options = { encoding: 'buffer' as const, timeout: 20_000, maxBuffer: 10_000_000 }
  const { stdout, stderr } = await run('coap-client-notls', args, options)
  assert.equal(stderr.toString(), '')
  return stdout
}

test('libcoap: methods, payload, long bodies both ways, NON, a slow function, discovery, errors', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 200 })
  await using folder = await tempFolder()
  const base = `coap://127.0.0.1:${scope.proxy.port}`
  assert.equal((await libcoap(['-m', 'post', '-e', 'hello', `${base}/echo`])).toString(), 'hello\n')
  assert.equal(
    (await libcoap(['-N', '-m', 'put', '-e', 'non', `${base}/echo`])).toString(),
    'non\n',
  )
  assert.equal(
    (
      await libcoap([
        '-m',
        'get',
        `coap://${urlHost(OTHER_LOOPBACK)}:${scope.proxy.port}/bytes?bytes=0`,
      ])
    ).length,
    0,
  )
  assert.equal((await libcoap(['-m', 'get', `${base}/slow?ms=600`])).toString(), 'slept\n')
  assert.match((await libcoap(['-m', 'get', `${base}/.well-known/core`])).toString(), /<\/echo>/)
  const file = folder.join('body')
  const body = Buffer.alloc(20_000, 'abcdefghij')
  await writeFile(file, body)
  for (const size of ['64', '1024']) {
    const back = folder.join(`back-${size}`)
    await libcoap(['-m', 'post', '-b', size, '-f', file, '-o', back, `${base}/echo`])
    assert.ok((await readFile(back)).equals(body), `in blocks of ${size}`)
  }
})

const TICKS = `
let cancelled = 0
async function* ticks(signal) {
  signal.addEventListener('abort', () => { cancelled += 1 })
  for (let tick = 0; ; tick += 1) {
    yield 'data: ' + String(tick).padStart(tick === 1 ? 3000 : 1) + '\\n\\n'
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
export default (request, context) => {
  if (request.method === 'POST') return new Response(String(cancelled))
  const headers = { 'content-type': 'text/event-stream' }
  return new Response(ReadableStream.from(ticks(context.signal)).pipeThrough(new TextEncoderStream()), { headers })
}`

test('libcoap observes a function, large events too; when it has seen enough, the function hears of it', async () => {
  await using node = await ServedNode.start()
  await node.deploy('ticks', TICKS)
  const url = `coap://127.0.0.1:${node.coap.port}/ticks`
  for (const [flags, cancelled] of [
    [[], '1\n'],
    [['-N'], '2\n'],
  ] as const) {
    const seen = await libcoap([...flags, '-w', '-s', '4', '-m', 'get', url])
    const events = seen.toString().trim().split(/\s+/)
    assert.ok(events.length > 5, `${events.length} events`)
    assert.deepEqual(events, [...events.keys()].map(String))
    assert.equal(seen.toString().split('\n')[1]?.length, 3000)
    await eventually(async () => (await libcoap(['-m', 'post', url])).toString() === cancelled)
    assert.equal(node.coap.stats.observers, 0)
  }
})

function ask(port: number, pathname: string, payload: Buffer, query = '') {
  return new Promise<{ code: string; payload: Buffer }>((resolve, reject) => {
    const target = { host: '127.0.0.1', port, pathname, query, method: 'POST' as const }
    const request: OutgoingMessage = coapRequest(target)
    if (payload.length > 1024) request.setOption('Block1', Buffer.of(6))
    request.on('response', (response) =>
      resolve({ code: response.code, payload: response.payload }),
    )
    request.on('error', reject)
    request.end(payload)
  })
}

test('the coap package: short and long bodies both ways, a slow function', async () => {
  await using scope = await coapProxyScope({ ackDelayMs: 200 })
  const { port } = scope.proxy
  for (const bytes of [1, 1000, 20_000]) {
    const body = patterned(bytes)
    const answer = await ask(port, '/echo', body)
    assert.equal(answer.code, '2.05')
    assert.ok(answer.payload.equals(body), `${bytes} bytes`)
  }
  const slow = await ask(port, '/slow', Buffer.alloc(0), 'ms=600')
  assert.equal(slow.payload.toString(), 'slept')
})

test('the coap package observes a function, until it has seen enough', async () => {
  await using scope = await coapProxyScope()
  const request: OutgoingMessage = coapRequest({
    host: '127.0.0.1',
    port: scope.proxy.port,
    pathname: '/events',
    query: 'count=5&then=wait',
    observe: true,
  })
  const seen: string[] = []
  request.on('response', (response: ObserveReadStream) => {
    response.on('data', (event: Buffer) => {
      seen.push(event.toString())
      if (seen.length === 5) response.close(true)
    })
  })
  request.end()
  await eventually(() => scope.invoker.seen.length > 0)
  await scope.invoker.aborted()
  assert.deepEqual(seen, ['----0', '----1', '----2', '----3', '----4'])
})

/** So that no more come at once than fit into a small receive buffer: the proxy reads its socket only when this process waits. */
async function pause(at: number): Promise<void> {
  if (at % 20 === 19) await new Promise((resolve) => setImmediate(resolve))
}

test('any datagram at all leaves the proxy serving', async () => {
  await using scope = await coapProxyScope()
  const client = await scope.client()
  const raw = fc.uint8Array({ minLength: 0, maxLength: 60 }).map((array) => Buffer.from(array))
  const options = fc.array(
    fc.tuple(
      fc.constantFrom(1, 3, 4, 5, 6, 7, 11, 12, 14, 15, 17, 20, 23, 27, 28, 35, 60, 258, 292, 999),
      fc.uint8Array({ maxLength: 12 }),
    ),
    { maxLength: 8 },
  )
  for (const [at, datagram] of fc.sample(raw, 1_000).entries()) {
    client.sendRaw(datagram)
    await pause(at)
  }
  for (const [at, list] of fc.sample(options, 1_000).entries()) {
    client.send({
      confirmable: list.length % 2 === 0,
      code: 'POST',
      payload: Buffer.from('x'),
      options: [
        ...uriPath('echo'),
        ...list.map(([name, value]) => ({ name: String(name), value: Buffer.from(value) })),
      ],
    })
    await pause(at)
  }
  const last = await scope.client()
  const answer = await last.ask({
    code: 'POST',
    payload: Buffer.from('ok'),
    options: uriPath('echo'),
  })
  assert.equal(answer.payload.toString(), 'ok')
  assert.equal(
    scope.log.lines.some(({ level }) => level === 'error'),
    false,
  )
})
