import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { FrameDecoder, FrameWriter, ProtocolError } from '#agent/invoke/frames/index.ts'
import { cutFrames, frameBytes } from '#test/frame-peer.ts'

interface Seen {
  readonly type: number
  readonly id: number
  readonly payload: string
}

/** Feeds a decoder as a socket would: through one buffer that is overwritten each time, or straight into the payload. */
function feed(decoder: FrameDecoder, bytes: Buffer, cuts: readonly number[]): void {
  const shared = Buffer.alloc(Math.max(1, bytes.length))
  let at = 0
  for (let index = 0; at < bytes.length; index += 1) {
    const target = decoder.target()
    const room = target?.length ?? shared.length
    const size = Math.min(room, bytes.length - at, Math.max(1, cuts[index % cuts.length] ?? 1))
    if (target === undefined) {
      shared.fill(0xee)
      bytes.copy(shared, 0, at, at + size)
      decoder.push(shared, size)
    } else {
      bytes.copy(target, 0, at, at + size)
      decoder.filled(size)
    }
    at += size
  }
}

function collect(seen: Seen[], kept: Buffer[] = []): FrameDecoder {
  return new FrameDecoder({
    frame(type, _flags, id, buffer, start, end, owned) {
      seen.push({ type, id, payload: buffer.toString('hex', start, end) })
      if (owned) kept.push(buffer)
    },
  })
}

const frames = fc.array(
  fc.record({
    type: fc.constantFrom(0x11, 0x12, 0x15, 0x20, 0x7f),
    id: fc.integer({ min: 0, max: 0xffff_ffff }),
    payload: fc.oneof(
      { weight: 8, arbitrary: fc.uint8Array({ minLength: 4, maxLength: 300 }) },
      { weight: 1, arbitrary: fc.constant(new Uint8Array(100_000).fill(7)) },
    ),
  }),
  { maxLength: 20 },
)
const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(70_000)), {
  minLength: 1,
  maxLength: 10,
})

it('frames come out the same however the stream is cut', () => {
  fc.assert(
    fc.property(frames, cuts, (sent, sizes) => {
      const wire = sent.map(({ type, id, payload }) => frameBytes(type, id, Buffer.from(payload)))
      const seen: Seen[] = []
      const decoder = collect(seen)
      feed(decoder, Buffer.concat(wire), sizes)
      const expected = sent.map(({ type, id, payload }) => ({
        type,
        id,
        payload: Buffer.from(payload).toString('hex'),
      }))
      assert.deepEqual(seen, expected)
      assert.equal(decoder.pendingBytes, 0)
    }),
    { numRuns: 300 },
  )
})

it('a payload that is said to be owned stays as it was when later bytes arrive', () => {
  fc.assert(
    fc.property(frames, cuts, (sent, sizes) => {
      const seen: Seen[] = []
      const kept: Buffer[] = []
      const wire = sent.map(({ type, id, payload }) => frameBytes(type, id, Buffer.from(payload)))
      feed(collect(seen, kept), Buffer.concat(wire), sizes)
      const payloads = new Set(seen.map(({ payload }) => payload))
      for (const buffer of kept) assert(payloads.has(buffer.toString('hex')))
    }),
    { numRuns: 100 },
  )
})

it('of a stream that is cut off, whole frames come out and the rest waits', () => {
  fc.assert(
    fc.property(frames, cuts, fc.nat(5_000), (sent, sizes, missing) => {
      const wire = Buffer.concat(
        sent.map(({ type, id, payload }) => frameBytes(type, id, Buffer.from(payload))),
      )
      const cut = wire.subarray(0, Math.max(0, wire.length - missing))
      const whole = cutFrames(cut)
      const seen: Seen[] = []
      const decoder = collect(seen)
      feed(decoder, cut, sizes)
      assert.equal(seen.length, whole.frames.length)
      assert.equal(decoder.pendingBytes, whole.rest.length)
    }),
    { numRuns: 200 },
  )
})

it('any bytes are frames or a protocol error, and never more than one payload is kept', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4_000 }), cuts, (noise, sizes) => {
      const decoder = collect([])
      try {
        feed(decoder, Buffer.from(noise), sizes)
      } catch (error) {
        assert(error instanceof ProtocolError, String(error))
      }
      assert(decoder.pendingBytes <= 12 + 1_114_112)
    }),
    { numRuns: 500 },
  )
})

it('a length above the limit is refused when the header is read, before anything is kept', () => {
  const lengths = fc.integer({ min: 1_114_113, max: 0xffff_ffff })
  fc.assert(
    fc.property(lengths, fc.integer({ min: 0, max: 255 }), cuts, (length, type, sizes) => {
      const decoder = collect([])
      const header = frameBytes(type, 1, '', { length })
      assert.throws(() => feed(decoder, header, sizes), ProtocolError)
      assert(decoder.pendingBytes <= 12)
    }),
  )
})

it('what the writer batches is the frames in order, whatever their sizes and whenever it is flushed', () => {
  const body = fc.oneof(
    fc.integer({ min: 0, max: 200 }),
    fc.constantFrom(16_384, 16_385, 131_072, 1_048_576),
  )
  const step = fc.record({ bytes: body, flush: fc.boolean(), backlog: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const written: Buffer[] = []
      const output = {
        backlogBytes: 0,
        // Kept as they are, not copied: the writer must leave them alone while there is a backlog.
        write: (chunk: Buffer) =>
          written.push(output.backlogBytes > 0 ? chunk : Buffer.from(chunk)),
        cork: () => {},
        uncork: () => {},
      }
      const writer = new FrameWriter(output)
      const expected: string[] = []
      for (const [index, { bytes, flush, backlog }] of steps.entries()) {
        // Once something waits, it waits to the end.
        output.backlogBytes ||= backlog ? 1 : 0
        const payload = Buffer.alloc(bytes, index + 1)
        writer.data(index, 0, payload, 0, bytes)
        expected.push(frameBytes(0x12, index, payload).toString('hex'))
        if (flush) writer.flush()
      }
      writer.flush()
      assert(Buffer.concat(written).toString('hex') === expected.join(''))
    }),
    { numRuns: 60 },
  )
})
