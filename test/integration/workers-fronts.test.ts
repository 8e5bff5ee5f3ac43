import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { pino } from 'pino'
import { OwnFronts, WorkerFronts, type Fronts } from '#agent/fronts/index.ts'
import { blocks } from '#agent/sockets/index.ts'
import { coapClient, curl, grpcCall } from '#test/clients.ts'
import { eventually } from '#test/eventually.ts'
import { tempFolder, type TempFolder } from '#test/temp.ts'
import { produced, TestInvoker } from '#test/invoker.ts'

const BODY_BYTES_MAX = 1024 * 1024
const WORKERS = 2

class NamingInvoker extends TestInvoker {
  onNames: (() => void) | undefined
  readonly more: string[] = []

  override names(): readonly string[] {
    return [...super.names(), ...this.more].toSorted()
  }
}

const invoker = new NamingInvoker()
const options = {
  host: '127.0.0.1',
  ports: { http: 0, coap: 0, grpc: 0 },
  bodyBytesMax: BODY_BYTES_MAX,
  invoker,
  log: pino({ level: 'silent' }),
}
let folder: TempFolder
let own: Fronts
let workers: Fronts

before(async () => {
  folder = await tempFolder()
  await writeFile(folder.join('big'), BIG)
  await writeFile(folder.join('too-large'), TOO_LARGE)
  own = await OwnFronts.open(options)
  workers = await WorkerFronts.open({ ...options, workers: WORKERS })
})
after(async () => {
  await workers.close()
  await own.close()
  await folder[Symbol.asyncDispose]()
})

function url(fronts: Fronts, path: string): string {
  return `http://127.0.0.1:${fronts.ports.http}/${path}`
}

async function byHttp(fronts: Fronts, path: string, ...args: readonly string[]) {
  const files = args.map((arg) => arg.replace(/^@/, `@${folder.path}/`))
  const answer = await curl(url(fronts, path), ...files).catch((error: { code: number }) => ({
    status: error.code,
    headers: {},
    body: 'curl failed',
  }))
  const { date: _, 'x-request-id': __, ...headers }: Record<string, string> = answer.headers
  return { ...answer, headers }
}

const BIG = Buffer.alloc(700_000, 'big')
const TOO_LARGE = Buffer.alloc(BODY_BYTES_MAX + 1, 'x')
const HTTP: readonly { readonly name: string; readonly path: string; readonly args?: string[] }[] =
  [
    {
      name: 'what a function is told',
      path: 'inspect/a%20b?q=1',
      args: ['-H', 'x-request-id: r1', '-H', 'host: node'],
    },
    { name: 'a status, fields', path: 'status?status=418&header=x-a=1&body=tea' },
    { name: 'the name with most segments', path: 'site/a/b/echo', args: ['-d', 'deep'] },
    { name: 'a whole body', path: 'echo', args: ['-d', 'x'.repeat(60_000)] },
    {
      name: 'a streamed body',
      path: 'stream',
      args: ['-H', 'transfer-encoding: chunked', '--data-binary', '@big'],
    },
    { name: 'a larger whole answer', path: 'bytes?bytes=200000' },
    { name: 'a streamed answer', path: 'pieces?count=100&bytes=10000' },
    { name: 'a streamed answer that breaks off', path: 'pieces?count=3&bytes=100000&fail=1' },
    {
      name: 'a function that reads no more of the body',
      path: 'sip?ms=1',
      args: ['--data-binary', '@big'],
    },
    { name: 'a fault', path: 'fault?code=FUNCTION_ERROR' },
    {
      name: 'a fault with a hint when to try again',
      path: 'fault?code=FUNCTION_SATURATED&retryAfterMs=2500',
    },
    { name: 'a bug, of which nothing is told', path: 'fault' },
    { name: 'a function that is not there', path: 'nobody' },
    {
      name: 'a body that is too large',
      path: 'echo',
      args: ['--data-binary', '@too-large'],
    },
    {
      name: 'a body that turns out too large',
      path: 'echo',
      args: ['-H', 'transfer-encoding: chunked', '--data-binary', '@too-large'],
    },
    {
      name: 'a call in the background',
      path: 'echo',
      args: ['-H', 'x-tinyfaas-async: 1', '--data-binary', '@big'],
    },
  ]

async function listed(): Promise<string> {
  const uri = `coap://127.0.0.1:${workers.ports.coap}/.well-known/core`
  return (await coapClient(uri, { method: 'get' })).stdout
}

describe('fronts in workers', () => {
  for (const { name, path, args = [] } of HTTP) {
    it(`HTTP answers as the agent's own front does: ${name}`, async () => {
      const expected = await byHttp(own, path, ...args)
      assert.deepEqual(await byHttp(workers, path, ...args), expected)
    })
  }

  it('a call in the background arrives whole', async () => {
    const { accepted } = invoker
    accepted.length = 0
    const { status } = await byHttp(
      workers,
      'echo',
      '-H',
      'x-tinyfaas-async: 1',
      '--data-binary',
      '@big',
    )
    assert.equal(status, 202)
    assert.deepEqual(
      accepted.map(({ body, protocol }) => [Buffer.isBuffer(body) && body.toString(), protocol]),
      [[BIG.toString(), 'async']],
    )
  })

  it('the memory of a body is used again when its call has been answered', async (t) => {
    const { mock } = t.mock.method(blocks, 'tookNew')
    for (let call = 0; call < 20; call++) {
      const { status } = await byHttp(workers, 'status', '-d', 'x'.repeat(60_000))
      assert.equal(status, 200)
    }
    const bytes = mock.calls.reduce((sum, { arguments: [taken] }) => sum + taken, 0)
    assert.ok(bytes < 5 * 65_536, `${bytes} bytes of new memory for 20 bodies, one at a time`)
  })

  it('a deadline gets to the router', async () => {
    const header = ['-H', 'x-shoal-deadline-ms: 1234']
    const { body } = await byHttp(workers, 'inspect', ...header)
    assert.match(body, /"deadlineMs":1234,/)
  })

  it('CoAP answers as well, block-wise both ways, and lists the functions', async () => {
    for (const [path, payload] of [
      ['echo', 'by coap'],
      ['echo', 'the same again'],
      ['echo', 'and again'],
      ['echo', 'c'.repeat(5_000)],
      ['fault?code=FUNCTION_SATURATED&retryAfterMs=2500', ''],
      ['nobody', ''],
    ] as const) {
      const [expected, found] = await Promise.all(
        [own, workers].map(({ ports }) =>
          coapClient(`coap://127.0.0.1:${ports.coap}/${path}`, payload === '' ? {} : { payload }),
        ),
      )
      assert.deepEqual(found, expected)
      assert.notEqual(`${found?.stdout}${found?.stderr}`, '')
    }
    assert.match(await listed(), /<\/echo>.*<\/stream>/)
  })

  it('gRPC answers as well, faults too', async () => {
    const path = 'shoal.v1.Functions/Invoke'
    const ask = async ({ ports }: Fronts, request: object) => {
      const address = `127.0.0.1:${ports.grpc}`
      return grpcCall(address, path, request).then(
        ({ payload, status }) => ({ payload: payload.toString(), status }),
        (error: { code: number; details: string }) => ({ code: error.code, is: error.details }),
      )
    }
    for (const request of [
      { function: 'echo', payload: Buffer.from('by grpc') },
      { function: 'echo', payload: Buffer.alloc(600_000, 'g') },
      { function: 'nobody' },
    ]) {
      assert.deepEqual(await ask(workers, request), await ask(own, request))
    }
  })

  it('a function that comes is known to every worker', async () => {
    assert.doesNotMatch(await listed(), /newcomer/)
    invoker.more.push('newcomer')
    invoker.onNames?.()
    // Peers on other ports come to other workers.
    await eventually(async () => {
      const seen = await Promise.all(Array.from({ length: 4 }, listed))
      return seen.every((list) => list.includes('</newcomer>'))
    })
  })

  it('a caller that goes cancels its call', async () => {
    const socket = connect(workers.ports.http, '127.0.0.1')
    await once(socket, 'connect')
    const seen = invoker.seen.length
    socket.write('GET /slow?ms=60000 HTTP/1.1\r\nhost: a\r\n\r\n')
    await eventually(() => invoker.seen.length > seen)
    socket.destroy()
    await eventually(() => invoker.seen.at(-1)?.signal?.aborted === true)
    await eventually(() => invoker.running === 0)
  })

  it('a caller that does not read holds the function up, and gets all when it does', async () => {
    const bytes = 64 * 1024 * 1024
    const socket = connect(workers.ports.http, '127.0.0.1')
    await once(socket, 'connect')
    const earlier = produced.bytes
    socket.pause()
    socket.write(
      `GET /pieces?count=1024&bytes=65536 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`,
    )
    let last = -1
    const settled = await eventually(
      () => {
        const made = produced.bytes - earlier
        const still = made > 0 && made === last
        last = made
        return still && made
      },
      { everyMs: 100 },
    )
    assert.ok(settled < bytes / 2, `${settled} bytes were made for nobody`)
    let received = 0
    socket.on('data', (chunk) => (received += chunk.length)).resume()
    await once(socket, 'end')
    assert.ok(received > bytes, `${received} bytes came`)
  })

  it('a worker that dies is replaced while the other one serves', async () => {
    const [killed = 0, other] = workers.pids
    process.kill(killed, 'SIGKILL')
    await eventually(() => !workers.pids.includes(killed))
    assert.deepEqual(workers.pids, [other], 'the other one goes on')
    assert.equal((await byHttp(workers, 'echo', '-d', 'on')).body, 'on')
    await eventually(() => workers.pids.length === WORKERS)
    assert.equal(workers.blocked, undefined)
  })
})
