import assert from 'node:assert/strict'
import { it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Inflater } from '#agent/proxy/grpc/server/inflate.ts'

const BYTES_MAX = 1_000

it('messages are unpacked in their turn, a few at once; one that is dropped before is forgotten at once', async () => {
  const inflater = new Inflater()
  const done: string[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  const drops = Array.from({ length: 10 }, (_, n) => {
    const packed = gzipSync(String(n))
    return inflater.inflate('gzip', packed, BYTES_MAX, (result) => {
      done.push(Buffer.isBuffer(result) ? String(result) : `${n} dropped`)
      if (done.length === 10) resolve()
    })
  })
  assert.deepEqual(
    drops.map((drop) => drop !== undefined),
    [false, false, false, false, true, true, true, true, true, true],
  )
  assert.ok(inflater.busy)
  for (const n of [5, 9]) drops[n]?.()
  assert.deepEqual(done, ['5 dropped', '9 dropped'])
  // Once is all.
  drops[5]?.()
  await promise
  const unpacked = done.slice(2)
  assert.deepEqual(unpacked.toSorted(), ['0', '1', '2', '3', '4', '6', '7', '8'])
  assert.ok(!inflater.busy)
  drops[4]?.()
  assert.equal(done.length, 10)
})
