import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { zipSync, strToU8 } from 'fflate'
import { coapClient, curl, grpcCall } from '#test/clients.ts'
import { functionFolder } from '#test/function-folder.ts'
import { productScope, type ProductScope } from '#test/product.ts'

/** The functions that tinyFaaS ships as its examples, in shape. */
const SIEVE = {
  'package.json': JSON.stringify({ name: 'fn', version: '1.0.0', main: 'index.js' }),
  'index.js': `module.exports = (req, res) => {
    const max = 1000
    sieve = [] // an undeclared global, as in tinyFaaS' own example
    const primes = []
    for (let i = 2; i <= max; ++i) {
      if (!sieve[i]) { primes.push(i); for (let j = i << 1; j <= max; j += i) sieve[j] = true }
    }
    const response = ("Found " + primes.length + " primes under " + max)
    console.log(response)
    res.send(response)
  }`,
}

describe('an unmodified tinyFaaS client', { timeout: 600_000 }, () => {
  let product: ProductScope

  before(async () => {
    product = await productScope({ SHOAL_SAMPLES: '0', SHOAL_COMPAT: 'tinyfaas' })
    await product.start()
  })
  after(() => product[Symbol.asyncDispose]())

  const management = (path: string): string => `http://127.0.0.1:${product.ports.tinyfaas}${path}`

  /** What scripts/upload.sh sends: one curl with the whole JSON as form data. */
  async function upload(
    name: string,
    env: string,
    threads: number,
    files: Readonly<Record<string, string>>,
  ) {
    const entries = Object.entries(files).map(([path, text]) => [path, strToU8(text)] as const)
    const zip = Buffer.from(zipSync(Object.fromEntries(entries))).toString('base64')
    await using folder = await functionFolder({ json: JSON.stringify({ name, env, threads, zip }) })
    return await curl(management('/upload'), '--data', `@${folder.join('json')}`)
  }

  it('uploads, and the function answers when upload returns', async () => {
    const uploaded = await upload('sieve', 'nodejs', 1, SIEVE)
    assert.equal(uploaded.status, 200, uploaded.body)
    assert.deepEqual(uploaded.body.trim().split('\n').toSorted(), [
      `coap://:${product.ports.coap}/sieve`,
      `grpc://:${product.ports.grpc}/sieve`,
      `http://:${product.ports.http}/sieve`,
    ])
    assert.equal((await curl(product.url('/sieve'))).body, 'Found 168 primes under 1000')
  })

  it('calls it over CoAP and gRPC', async () => {
    const coap = await coapClient(`coap://127.0.0.1:${product.ports.coap}/sieve`, { method: 'get' })
    assert.match(coap.stdout, /Found 168 primes/)
    const grpc = await grpcCall(
      `127.0.0.1:${product.ports.grpc}`,
      'openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request',
      { functionIdentifier: 'sieve', data: '' },
    )
    assert.match(grpc.response, /Found 168 primes/)
    await assert.rejects(
      grpcCall(
        `127.0.0.1:${product.ports.grpc}`,
        'openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request',
        { functionIdentifier: 'nobody', data: '' },
      ),
      { code: 2, details: 'function nobody not found' },
    )
  })

  it('a function that fails is a success with its text, as in tinyFaaS', async () => {
    const failing = { 'fn.py': "def fn(input, headers):\n    raise ValueError('out of range')\n" }
    assert.equal((await upload('failing', 'python3', 1, failing)).status, 200)
    const answer = await curl(product.url('/failing'), '-d', 'x')
    assert.equal(answer.status, 200)
    assert.match(answer.body, /out of range/)
  })

  it('lists, reads logs, deletes and wipes', async () => {
    const list = await curl(management('/list'))
    assert.deepEqual(list.body.trim().split('\n').toSorted(), ['failing', 'sieve'])
    const logs = await curl(management('/logs?name=sieve'))
    assert.match(logs.body, /^function=sieve handler=\S+ \d{4}-\S+Z Found 168 primes under 1000$/m)
    const deleted = await curl(management('/delete'), '--data', '{"name": "sieve"}')
    assert.deepEqual([deleted.status, deleted.body], [200, ''])
    assert.equal((await curl(product.url('/sieve'))).status, 404)
    assert.equal((await curl(management('/delete'), '--data', '{"name": "sieve"}')).status, 500)
    assert.equal((await curl(management('/wipe'), '--data', '')).status, 200)
    assert.equal((await curl(management('/list'))).body, '')
  })

  it('refuses what tinyFaaS refuses', async () => {
    assert.equal((await curl(management('/'))).status, 404)
    assert.equal((await curl(management('/upload'))).status, 400)
    assert.equal((await curl(management('/upload'), '--data', 'not json')).status, 400)
    assert.equal((await upload('no-dashes', 'nodejs', 1, SIEVE)).status, 500)
    assert.equal((await upload('x', 'cobol', 1, SIEVE)).status, 500)
  })
})
