import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { coapClient, curl, grpcCall } from '#test/clients.ts'
import { machinePace } from '#test/machine-pace.ts'
import { productScope, type ProductScope } from '#test/product.ts'

const PRIMES_TO_30 = 'Found 10 primes up to 30'
const STOP_MS = 30_000
/** On a machine of its pace: see `machinePace`. */
const SECOND_START_MS = 5_000

describe('npm start, as a stranger sees it', { timeout: 600_000 }, () => {
  let product: ProductScope

  before(async () => {
    product = await productScope()
    await product.start()
  })
  after(() => product[Symbol.asyncDispose]())

  it('prints what runs where', () => {
    const output = product.output()
    for (const port of ['http', 'coap', 'grpc', 'api', 'nats'] as const) {
      assert.match(output, new RegExp(`\\b${product.ports[port]}\\b`), port)
    }
    for (const name of ['sieve', 'echo', 'hello'])
      assert.match(output, new RegExp(`${name} .*ready`))
  })

  it('prints three lines to copy, and each of them works as it is', async () => {
    const lines = product.output().split('\n')
    const from = lines.indexOf('Try it:')
    assert.notEqual(from, -1, product.output())
    const commands = lines.slice(from + 1).filter((line) => line.startsWith('  '))
    assert.equal(commands.length, 3, product.output())
    const expected = [/25 primes/, /over CoAP/, /gRPC/]
    for (const [n, command] of commands.entries()) {
      const ran = await product.run('sh', ['-c', command])
      assert.equal(ran.code, 0, `${command}\n${ran.stderr}`)
      assert.match(ran.stdout, expected[n] ?? /./, command)
    }
  })

  it('answers curl: each sample, with status, content type and body', async () => {
    const sieve = await curl(product.url('/sieve'), '-d', '30')
    assert.equal(sieve.status, 200)
    assert.equal(sieve.body.trim(), PRIMES_TO_30)
    const all = await curl(product.url('/sieve'))
    assert.equal(all.body.trim(), 'Found 1229 primes up to 10000')
    const echo = await curl(product.url('/echo'), '-d', 'body back')
    assert.equal(echo.body, 'body back')
    const hello = await curl(product.url('/hello'), '-d', 'curl')
    assert.match(hello.body, /curl/)
    assert.match(hello.headers['content-type'] ?? '', /^text\/plain/)
  })

  it('answers coap-client: each sample', async () => {
    const at = `coap://127.0.0.1:${product.ports.coap}`
    const sieve = await coapClient(`${at}/sieve`, { payload: '30' })
    assert.equal(sieve.stdout.trim(), PRIMES_TO_30)
    const long = 'block-wise '.repeat(400)
    assert.equal((await coapClient(`${at}/echo`, { payload: long })).stdout.trim(), long.trim())
    assert.equal((await coapClient(`${at}/echo`, { payload: 'hi' })).stdout.trim(), 'hi')
    assert.match((await coapClient(`${at}/hello`, { payload: 'coap' })).stdout, /coap/)
    const links = await coapClient(`${at}/.well-known/core`, { method: 'get' })
    for (const name of ['sieve', 'echo', 'hello'])
      assert.match(links.stdout, new RegExp(`</${name}>`))
  })

  it('answers gRPC clients made from both committed protos: each sample', async () => {
    const at = `127.0.0.1:${product.ports.grpc}`
    for (const [fn, data, expected] of [
      ['sieve', '30', PRIMES_TO_30],
      ['echo', 'hi', 'hi'],
      ['hello', 'grpc', 'grpc'],
    ] as const) {
      const old = await grpcCall(at, 'openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request', {
        functionIdentifier: fn,
        data,
      })
      assert.ok(old.response.includes(expected), old.response)
      const own = await grpcCall(at, 'shoal.v1.Functions/Invoke', {
        function: fn,
        payload: Buffer.from(data),
      })
      assert.equal(own.status, 200)
      assert.ok(own.payload.toString().includes(expected))
    }
  })

  it('names an unknown function the same way everywhere', async () => {
    assert.equal((await curl(product.url('/nobody'))).status, 404)
    const coap = await coapClient(`coap://127.0.0.1:${product.ports.coap}/nobody`)
    assert.match(`${coap.stdout}${coap.stderr}`, /4\.04/)
    await assert.rejects(
      grpcCall(`127.0.0.1:${product.ports.grpc}`, 'shoal.v1.Functions/Invoke', {
        function: 'nobody',
      }),
      { code: 5 },
    )
  })

  it('refuses a second start on the same data folder and names who runs', async () => {
    const second = await product.run(process.execPath, ['deploy/start.mjs', 'start'])
    assert.equal(second.code, 1)
    assert.match(second.stdout + second.stderr, /already runs.*process \d+/)
  })

  it('stops in time and leaves no container, and a second start is ready in under 5 s', async () => {
    const running = await product.containers()
    assert.equal(running.length >= 3, true, 'one handler for each sample')
    const stopped = await product.stop()
    assert.equal(stopped.code, 0)
    assert.ok(stopped.tookMs < STOP_MS, `${stopped.tookMs} ms`)
    assert.deepEqual(await product.containers(), [])

    // The best of five: what else runs on the machine is no fault of the start.
    const starts: { readonly tookMs: number; readonly boundMs: number }[] = []
    const inTime = () => starts.some(({ tookMs, boundMs }) => tookMs < boundMs)
    while (starts.length < 5 && !inTime()) {
      if (starts.length > 0) await product.stop()
      // Measured while nothing of the product runs, which then cannot slow it down.
      const boundMs = SECOND_START_MS * (await machinePace())
      starts.push({ tookMs: await product.start(), boundMs })
      assert.match(product.output(), /ready in/)
      assert.equal((await curl(product.url('/sieve'), '-d', '30')).status, 200)
    }
    assert.ok(inTime(), `second starts: ${JSON.stringify(starts)}`)
  })
})
