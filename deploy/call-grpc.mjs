// Calls a function over gRPC, as any client made from proto/tinyfaas.proto would; plain JavaScript for Node 20.
//
//   node deploy/call-grpc.mjs <host:port> <function> [text]
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { credentials, loadPackageDefinition } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const [address, functionIdentifier, data = ''] = process.argv.slice(2)
if (address === undefined || functionIdentifier === undefined) {
  process.stderr.write('usage: node deploy/call-grpc.mjs <host:port> <function> [text]\n')
  process.exit(1)
}
const proto = join(dirname(fileURLToPath(import.meta.url)), '../proto/tinyfaas.proto')
const { TinyFaaS } = loadPackageDefinition(loadSync(proto)).openfogstack.tinyfaas.tinyfaas
const client = new TinyFaaS(address, credentials.createInsecure())
client.Request({ functionIdentifier, data }, { deadline: Date.now() + 30_000 }, (error, answer) => {
  client.close()
  if (error) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  } else {
    process.stdout.write(answer.response.endsWith('\n') ? answer.response : `${answer.response}\n`)
  }
})
