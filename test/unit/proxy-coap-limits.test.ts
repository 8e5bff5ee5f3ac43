import assert from 'node:assert/strict'
import { it } from 'node:test'
import { CODE } from '#agent/proxy/coap/answer.ts'
import { Assembler } from '#agent/proxy/coap/assembler.ts'
import { limitsOf } from '#agent/proxy/coap/limits.ts'
import { Slicer } from '#agent/proxy/coap/slicer.ts'

const MIB = 1024 * 1024

it('what a CoAP front holds follows from its memory, the largest body, and how many share the node', () => {
  const rows = [
    // Room for bodies, largest body, processes: in flight, remembered, in blocks, events.
    [
      [1024, 8, 1],
      [64, 32, 32, 16],
      [4_096, 65_000, 1_024, 256],
    ],
    [
      [1024, 16, 1],
      [128, 32, 64, 16],
      [4_096, 65_000, 1_024, 256],
    ],
    [
      [8, 8, 1],
      [8, 4, 8, 2],
      [4_096, 65_000, 1_024, 256],
    ],
    [
      [1024, 1, 4],
      [16, 8, 8, 4],
      [1_024, 16_250, 256, 64],
    ],
    [
      [1024, 8, 4],
      [64, 8, 32, 4],
      [1_024, 16_250, 256, 64],
    ],
    [
      [8, 1, 4],
      [8, 4, 8, 2],
      [1_024, 16_250, 256, 64],
    ],
  ] as const
  for (const [[bodiesMiB, bodyMiB, processes], bytes, counts] of rows) {
    const limits = limitsOf({ bodyBytesMax: bodyMiB * MIB, processes }, bodiesMiB * MIB)
    const { inFlightBytesMax, dedupBytesMax, blockwiseBytesMax, eventsBytesMax } = limits
    const { inFlightMax, dedupEntriesMax, observersMax, observersPerAddressMax } = limits
    const all = [inFlightBytesMax, dedupBytesMax, blockwiseBytesMax, eventsBytesMax]
    const name = `${bodiesMiB} ${bodyMiB} ${processes}`
    assert.deepEqual(
      all.map((one) => one / MIB),
      bytes,
      name,
    )
    const found = [inFlightMax, dedupEntriesMax, observersMax, observersPerAddressMax]
    assert.deepEqual(found, counts, name)
  }
})

it('what is asked for wins', () => {
  const asked = { inFlightBytesMax: 1, dedupBytesMax: 2, inFlightMax: 3, observersMax: 8 }
  const limits = limitsOf({ bodyBytesMax: MIB, processes: 2, ...asked }, 8 * MIB)
  assert.deepEqual({ ...limits, ...asked, observersPerAddressMax: 2 }, limits)
})

it('a body in blocks may be as large as there is room for, and is no larger than that', () => {
  const { bodyBytesMax, blockwiseBytesMax } = limitsOf({ bodyBytesMax: 8 * MIB }, 4 * MIB)
  assert.deepEqual([bodyBytesMax, blockwiseBytesMax], [4 * MIB, 4 * MIB])
  assert.equal(limitsOf({ bodyBytesMax: 8 * MIB }, 8 * MIB).bodyBytesMax, 8 * MIB)
})

it('a body that takes all the room for blocks comes and goes whole, however its buffer grows', () => {
  const bounds = { bytesMax: MIB, lifetimeMs: 1_000, nowMs: () => 0 }
  const assembler = new Assembler({ ...bounds, bodyBytesMax: MIB })
  const blocks = MIB / 1_024
  for (let num = 0; num < blocks; num += 1) {
    const more = num + 1 < blocks
    const block = { num, more, szx: 6 }
    const answer = assembler.add('peer', '/', block, 0, Buffer.alloc(1_024, num & 0xff))
    if (more) assert.ok(!Buffer.isBuffer(answer) && answer.code === CODE.continue, String(num))
    else assert.ok(Buffer.isBuffer(answer) && answer.length === MIB && answer[MIB - 1] === 0xff)
  }
  const slicer = new Slicer(bounds)
  const named = { transfer: '/', digest: undefined }
  const whole = { code: CODE.content, options: [], payload: Buffer.alloc(MIB) }
  slicer.first('peer', named, whole, undefined)
  const last = { num: blocks - 1, more: false, szx: 6 }
  assert.equal(slicer.next('peer', named, last).payload.length, 1_024)
})
