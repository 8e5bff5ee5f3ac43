import assert from 'node:assert/strict'
import { Socket } from 'node:dgram'
import { it } from 'node:test'
import { prepareHead } from '#agent/invoke/index.ts'
import { encodeMessage, parseMessage, TYPE } from '#agent/proxy/coap/codec.ts'
import { KnownOptions } from '#agent/proxy/coap/known-options.ts'
import { Slicer } from '#agent/proxy/coap/slicer.ts'
import { UdpPort } from '#agent/proxy/coap/udp-port.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { LOOPBACKS } from '#test/loopback.ts'

/** Memory that a buffer keeps, whatever part of it the buffer is. */
const heldBytes = ({ buffer }: Buffer): number => buffer.byteLength

it('what is kept of small messages does not hold the memory that small buffers share', () => {
  const options = [{ number: 11, value: Buffer.from('echo') }]
  const head = { type: TYPE.con, code: 2, messageId: 7, token: Buffer.alloc(0), options }
  const datagram = encodeMessage({ ...head, payload: Buffer.from('x') })
  const before = new KnownOptions()
  parseMessage(datagram, before)
  const message = parseMessage(datagram, before)
  assert.ok(typeof message === 'object' && 'options' in message && message.known !== undefined)
  assert.equal(heldBytes(message.known.bytes), 5)

  const lines = { method: 'GET', path: '', query: '', headers: [], protocol: 'coap' } as const
  const { bytes } = prepareHead(lines)
  assert.equal(heldBytes(bytes), bytes.length)

  const slicer = new Slicer({ bytesMax: 100_000, lifetimeMs: 1_000, nowMs: () => 0 })
  const answer = { code: 0x45, options, payload: Buffer.from('y'.repeat(100)) }
  assert.ok(heldBytes(answer.payload) > 1_000, 'Node has shared memory for small buffers')
  const named = { transfer: 't', digest: undefined }
  const block = { num: 0, more: false, szx: 0 }
  slicer.first('peer', named, answer, block)
  const second = slicer.next('peer', named, { ...block, num: 1 })
  assert.equal(second.payload.toString(), 'y'.repeat(16))
  assert.equal(heldBytes(second.payload), 100)
})

const skip = LOOPBACKS.includes('::1') ? false : 'this host has no IPv6'

it(
  'what waits to be sent to IPv4 peers is bounded, also while others are sent to',
  { skip },
  async (t) => {
    // As the system has it when a link stands still: nothing that is sent over it leaves.
    t.mock.method(Socket.prototype, 'getSendQueueSize', function (this: Socket): number {
      return this.address().family === 'IPv4' ? 5 * 1024 * 1024 : 0
    })
    const log = new CapturedLog()
    const options = { host: '::', port: 0, reusePort: false, log, onDatagram: () => undefined }
    const port = await UdpPort.bind(options)
    const peers = ['127.0.0.1', '::1'].map((address) => ({ address, port: port.port }))
    const lost = peers.map(() => 0)
    for (let sent = 0; sent < 200; sent++) {
      for (const [at, peer] of peers.entries()) {
        if (!port.send(Buffer.alloc(10), peer)) lost[at] = (lost[at] ?? 0) + 1
      }
    }
    await port.close()
    assert.ok((lost[0] ?? 0) > 150, `${lost[0]} of 200 were given up`)
  },
)
