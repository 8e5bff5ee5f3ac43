import { Agent, createServer, request } from 'node:http'
import { pino } from 'pino'

/**
 * The classic front: forwards each call over keep-alive HTTP to the handler's address on the bridge.
 *
 * Usage: node proxy.ts <host>; prints `{"msg":"ready","port":n}` and serves until it is killed.
 */
const log = pino()
const host = process.argv[2] ?? ''
const agent = new Agent({ keepAlive: true, maxSockets: 256 })

const server = createServer((incoming, response) => {
  const { method, url: path, headers } = incoming
  const onward = request({ host, port: 8000, agent, method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers)
    answer.pipe(response)
  })
  onward.on('error', () => {
    if (!response.headersSent) response.writeHead(502)
    response.end()
  })
  incoming.pipe(onward)
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  log.info({ port: typeof address === 'object' ? address?.port : 0 }, 'ready')
})
