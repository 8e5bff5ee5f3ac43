import assert from 'node:assert/strict'
import { it } from 'node:test'
import { coapClient, curl, grpcCall } from '#test/clients.ts'
import { functionFolder } from '#test/function-folder.ts'
import { productScope } from '#test/product.ts'

it('without Docker the samples answer all the same, with one warning; a deploy works; nothing is left', async () => {
  await using product = await productScope({ SHOAL_ENGINE: 'process' })
  await product.start()
  assert.equal(product.output().match(/WARNING: functions run as plain processes/g)?.length, 1)

  assert.match((await curl(product.url('/sieve'), '-d', '30')).body, /10 primes/)
  const coap = `coap://127.0.0.1:${product.ports.coap}/echo`
  assert.equal((await coapClient(coap, { payload: 'hi' })).stdout.trim(), 'hi')
  const grpc = await grpcCall(
    `127.0.0.1:${product.ports.grpc}`,
    'openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request',
    { functionIdentifier: 'hello', data: 'you' },
  )
  assert.match(grpc.response, /you/)

  await using folder = await functionFolder({ 'fn.py': 'def fn(input):\n    return input[::-1]\n' })
  const ran = await product.shoal('fn', 'deploy', folder.path, '--name', 'turn')
  assert.equal(ran.code, 0, ran.stdout + ran.stderr)
  assert.equal((await curl(product.url('/turn'), '-d', 'abc')).body, 'cba')

  const stopped = await product.stop()
  assert.equal(stopped.code, 0)
  assert.ok(stopped.tookMs < 10_000)
  const left = await product.run('pgrep', ['-f', `${product.data}/`])
  assert.deepEqual([left.code, left.stdout], [1, ''], 'no handler process is left')
})
