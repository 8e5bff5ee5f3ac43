import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { build } from 'esbuild'
import {
  type GrpcAnswer,
  grpcClient,
  grpcProxyScope,
  type GrpcClient,
} from '#test/grpc-proxy-scope.ts'
import { childScope } from '#test/process.ts'
import { tempFolder } from '#test/temp.ts'

const HEALTH = ['grpc/health/v1/health.proto', 'grpc.health.v1.Health'] as const
const REFLECTION = [
  ['grpc/reflection/v1/reflection.proto', 'grpc.reflection.v1.ServerReflection'],
  ['grpc/reflection/v1alpha/reflection.proto', 'grpc.reflection.v1alpha.ServerReflection'],
] as const

/** Sends one reflection question and returns its answer. */
async function reflect(client: GrpcClient, question: object): Promise<GrpcAnswer> {
  const stream = client.stream('ServerReflectionInfo')
  stream.write(question)
  for await (const answer of stream) {
    stream.end()
    return answer
  }
  throw new Error('no answer')
}

async function listServices(client: GrpcClient): Promise<string[]> {
  const { listServicesResponse } = await reflect(client, { listServices: '' })
  return listServicesResponse.service.map(({ name }) => name)
}

test('health: the server and its services are SERVING, others unknown; a watcher is told of the end', async () => {
  await using scope = await grpcProxyScope()
  const client = scope.client(...HEALTH)
  for (const service of ['', 'shoal.v1.Functions', 'openfogstack.tinyfaas.tinyfaas.TinyFaaS']) {
    assert.equal((await client.unary('Check', { service })).status, 'SERVING')
  }
  assert.equal((await client.failure('Check', { service: 'x' })).code, 5)
  const { statuses } = await client.unary('List', {})
  assert.equal(Object.keys(statuses).length, 3)
  const seen: unknown[] = []
  for await (const { status } of client.stream('Watch', { service: '' })) {
    seen.push(status)
    if (seen.length === 1) void scope.proxy.close(5_000)
  }
  assert.deepEqual(seen, ['SERVING', 'NOT_SERVING'])
})

test('reflection, v1 and v1alpha: services, files with what they import, symbols, and what is not there', async () => {
  await using scope = await grpcProxyScope()
  for (const [proto, service] of REFLECTION) {
    const client = scope.client(proto, service)
    assert.deepEqual(await listServices(client), [
      'shoal.v1.Functions',
      'openfogstack.tinyfaas.tinyfaas.TinyFaaS',
      'grpc.health.v1.Health',
      'grpc.reflection.v1.ServerReflection',
      'grpc.reflection.v1alpha.ServerReflection',
    ])
    const rows: [object, string][] = [
      [{ fileByFilename: 'shoal.proto' }, 'shoal.proto'],
      [{ fileContainingSymbol: 'shoal.v1.Functions' }, 'shoal.proto'],
      [{ fileContainingSymbol: 'shoal.v1.Functions.InvokeStream' }, 'shoal.proto'],
      [{ fileContainingSymbol: 'shoal.v1.InvokeRequest' }, 'shoal.proto'],
      [{ fileContainingSymbol: 'shoal.v1.InvokeRequest.payload' }, 'shoal.proto'],
      [{ fileContainingSymbol: 'openfogstack.tinyfaas.tinyfaas.Data' }, 'tinyfaas.proto'],
    ]
    for (const [question, file] of rows) {
      const { fileDescriptorResponse } = await reflect(client, question)
      const { fileDescriptorProto } = fileDescriptorResponse
      const descriptor = fromBinary(
        FileDescriptorProtoSchema,
        fileDescriptorProto[0] ?? new Uint8Array(),
      )
      assert.equal(descriptor.name, file, JSON.stringify(question))
    }
    for (const question of [
      { fileByFilename: 'x.proto' },
      { fileContainingSymbol: 'shoal.v1.Nothing' },
      { fileContainingSymbol: '' },
      { fileContainingExtension: { containingType: 'shoal.v1.InvokeRequest', extensionNumber: 1 } },
      { allExtensionNumbersOfType: 'x' },
    ]) {
      const { errorResponse } = await reflect(client, question)
      assert.equal(errorResponse.errorCode, 5, JSON.stringify(question))
    }
  }
})

test('bundled into one file and run from an empty folder, the services are all there', async () => {
  await using folder = await tempFolder()
  const root = join(import.meta.dirname, '../..')
  await build({
    stdin: {
      contents: `
        import { GrpcProxy } from '#agent/proxy/grpc/index.ts'
        import { TestInvoker } from '#test/invoker.ts'
        const log = { info() {}, warn() {}, error() {} }
        const proxy = await GrpcProxy.listen({ host: '::', port: 0, invoker: new TestInvoker(), bodyBytesMax: 1024, log })
        console.log(JSON.stringify({ msg: 'ready', port: proxy.port }))`,
      resolveDir: root,
      loader: 'ts',
    },
    bundle: true,
    keepNames: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    logLevel: 'error',
    banner: {
      js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);",
    },
    outfile: folder.join('proxy.mjs'),
  })
  await using child = await childScope({ script: folder.join('proxy.mjs'), cwd: folder.path })
  const { port }: { port: number } = JSON.parse(child.readyLine)
  const address = `127.0.0.1:${port}`
  using functions = grpcClient(address, 'shoal.proto', 'shoal.v1.Functions')
  const echo = await functions.unary('Invoke', {
    function: 'echo',
    payload: Buffer.from('bundled'),
  })
  assert.equal(String(echo.payload), 'bundled')
  using health = grpcClient(address, ...HEALTH)
  assert.equal((await health.unary('Check', {})).status, 'SERVING')
  using reflection = grpcClient(address, ...REFLECTION[0])
  assert.equal((await listServices(reflection)).length, 5)
})
