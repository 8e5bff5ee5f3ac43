import assert from 'node:assert/strict'
import { it } from 'node:test'
import { limitsOf } from '#agent/proxy/coap/limits.ts'

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
