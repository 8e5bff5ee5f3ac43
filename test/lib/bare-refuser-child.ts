import { createServer } from 'node:http'

// The least that Node can do when there are more calls than places, in a process of its own. See bare-refuser.ts.

const { concurrency, serviceMs }: { concurrency: number; serviceMs: number } = JSON.parse(
  process.argv[2] ?? '',
)
let inWork = 0
const server = createServer((request, response) => {
  request.resume()
  if (inWork >= concurrency) {
    response.writeHead(429, { 'retry-after': '1' }).end()
    return
  }
  inWork += 1
  setTimeout(() => {
    inWork -= 1
    response.end('ok')
  }, serviceMs)
})
server.listen(0, '127.0.0.1', () => process.send?.(server.address()))
process.once('disconnect', () => process.exit())
