import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { getHeapSpaceStatistics } from 'node:v8'
import { collectGarbage } from '#test/collect-garbage.ts'
import { DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW } from '#test/grpc-frames.ts'
import { grpcProxyScope } from '#test/grpc-proxy-scope.ts'
import { clientFrame, grpcBlock, PREFACE, u32 } from '#test/raw-h2.ts'

const BLOCK = grpcBlock('/grpc.health.v1.Health/Check')
const EMPTY_MESSAGE = Buffer.alloc(5)
const AT_ONCE = 32
const MIB = 1024 * 1024

function oldBytes(): number {
  const spaces = getHeapSpaceStatistics()
  return spaces.find(({ space_name: name }) => name === 'old_space')?.space_used_size ?? Number.NaN
}

function requests(firstId: number): Buffer {
  const frames = Array.from({ length: AT_ONCE }, (_, n) => [
    clientFrame(HEADERS, END_HEADERS, firstId + 2 * n, BLOCK),
    clientFrame(DATA, END_STREAM, firstId + 2 * n, EMPTY_MESSAGE),
  ])
  return Buffer.concat(frames.flat())
}

/** A peer that only counts what it is sent: its own garbage would be in the way. */
async function* batches(port: number): AsyncGenerator<void> {
  const socket = connect({ port, host: '127.0.0.1' })
  try {
    await once(socket, 'connect')
    socket.write(Buffer.concat([PREFACE, clientFrame(SETTINGS, 0, 0)]))
    socket.write(clientFrame(WINDOW, 0, 0, u32(2 ** 31 - 65_536)))
    socket.resume()
    // The first answers have SETTINGS with them; those of each later batch are as long as the second's.
    let batchBytes = 0
    for (let number = 0; ; number += 1) {
      const before = socket.bytesRead
      socket.write(requests(1 + number * 2 * AT_ONCE))
      if (number < 2) {
        for (let seen = -1; socket.bytesRead === before || socket.bytesRead !== seen;) {
          seen = socket.bytesRead
          await sleep(200)
        }
        batchBytes = socket.bytesRead - before
      }
      while (socket.bytesRead - before < batchBytes) await once(socket, 'data')
      yield
    }
  } finally {
    socket.destroy()
  }
}

test('calls that have ended are not kept: no old memory that grows with every call', async (t) => {
  await using scope = await grpcProxyScope()
  const batch = batches(scope.proxy.port)
  for (let n = 0; n < 50; n += 1) await batch.next()
  // What is there now becomes old: whatever it refers to later stays as long.
  collectGarbage()
  const before = oldBytes()
  for (let n = 0; n < 2_000; n += 1) await batch.next()
  const grown = oldBytes() - before
  await batch.return(undefined)
  t.diagnostic(`${grown} bytes`)
  assert.equal(scope.proxy.inFlight, 0)
  assert.ok(grown < 8 * MIB, `${grown} bytes by ${2_000 * AT_ONCE} calls`)
})
