import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { it } from 'node:test'
import { EventHub } from '#controller/events/index.ts'
import { eventually } from '#test/eventually.ts'
import { EventStream } from '../../controller/api/event-stream.ts'

const TOKEN = 'a-token-that-is-long-enough'

it('a client that does not read is cut off; nobody makes events for nobody', async () => {
  const events = new EventHub()
  const server = createServer()
  const stream = new EventStream({ server, token: TOKEN, events })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  assert.equal(events.wanted, false)
  const socket = connect(address.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write(
    `GET /v1/events?token=${TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  try {
    await eventually(() => events.wanted)
    socket.pause()
    let sentBytes = 0
    await eventually(
      () => {
        const node = 'x'.repeat(256 * 1024)
        sentBytes += node.length
        events.publish({ type: 'node-deleted', node })
        return !events.wanted
      },
      { everyMs: 1 },
    )
    // What the kernel's buffers hold, and the bound.
    assert.ok(sentBytes < 64 * 1024 * 1024, `${sentBytes} bytes were taken for it`)
  } finally {
    socket.destroy()
    stream.close()
    server.closeAllConnections()
    server.close()
  }
})
