import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { HttpProxy } from '#agent/proxy/http/index.ts'
import { CapturedLog } from '#test/captured-log.ts'
import { LANE_SETTINGS } from '#test/invoke-scope.ts'
import { RunnerProcess } from '#test/runner-process.ts'

// Memory of large bodies is used again: whoever got the bytes of another call would see it here.

const ECHO = 'module.exports = (req, res) => res.send(req.rawBody)\n'
const BODY_BYTES_MAX = 8 * 1024 * 1024

/** Bytes that no other call has: their first tells whose they are. */
function bytesOf(call: number, length: number): Buffer {
  const body = Buffer.alloc(length, (call % 255) + 1)
  for (let at = 0; at + 4 <= length; at += 4_096) body.writeUInt32BE(call, at)
  return body
}

/** A caller that takes the answer at its own pace, and may go in the middle of anything. */
async function echo(port: number, number: number, length: number): Promise<'whole' | 'left'> {
  const body = bytesOf(number, length)
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  const leavesAt = number % 3 === 0 ? Math.floor(length / 2) : Number.POSITIVE_INFINITY
  const chunked = number % 2 === 0
  const framing = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`
  socket.write(`POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${framing}\r\n\r\n`)
  if (chunked) socket.write(`${length.toString(16)}\r\n`)
  socket.write(body)
  if (chunked) socket.write('\r\n0\r\n\r\n')
  // Longer than the kernel's buffers can hide it from the agent.
  if (number % 5 === 0) {
    await once(socket, 'readable')
    await sleep(300)
  }
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > leavesAt) {
      socket.destroy()
      return 'left'
    }
  }
  const answer = Buffer.concat(chunks)
  const start = answer.indexOf('\r\n\r\n') + 4
  assert.match(answer.toString('latin1', 0, start), /^HTTP\/1\.1 200 /)
  const isChunked = /transfer-encoding: chunked/.test(answer.toString('latin1', 0, start))
  const got = isChunked ? unchunk(answer.subarray(start)) : answer.subarray(start)
  assert.ok(got.equals(body), `call ${number} of ${length} bytes got other bytes`)
  return 'whole'
}

function unchunk(wire: Buffer): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; ;) {
    const line = wire.indexOf('\r\n', at)
    const bytes = Number.parseInt(wire.toString('latin1', at, line), 16)
    if (bytes === 0) return Buffer.concat(parts)
    parts.push(wire.subarray(line + 2, line + 2 + bytes))
    at = line + 2 + bytes + 2
  }
}

test('large bodies of many callers, some of whom are slow or leave, never mix', async () => {
  await using runner = await RunnerProcess.start(ECHO)
  const { router } = runner.scope
  const settings = { ...LANE_SETTINGS, concurrency: 24, queue: 1_000, timeoutMs: 60_000 }
  router.ensure('echo', { ...settings, bodyBytesMax: BODY_BYTES_MAX }).attach(runner.link, 'r1')
  const log = new CapturedLog()
  const options = { host: '::', port: 0, invoker: router, bodyBytesMax: BODY_BYTES_MAX, log }
  await using proxy = await HttpProxy.listen(options)
  const sizes = [3_000, 40_000, 65_536, 66_000, 140_000, 300_000, 1_100_000, 6_000_000]
  const found: Record<string, number> = { whole: 0, left: 0 }
  let number = 0
  const callers = Array.from({ length: 16 }, async () => {
    while (number < 400) {
      const mine = number++
      const outcome = await echo(proxy.port, mine, sizes[mine % sizes.length] ?? 1)
      found[outcome] = (found[outcome] ?? 0) + 1
    }
  })
  await Promise.all(callers)
  assert.deepEqual(found, { whole: 266, left: 134 })
})
