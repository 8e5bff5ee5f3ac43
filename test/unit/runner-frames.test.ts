import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { headLines } from '../../runtimes/nodejs/connection.ts'
import { FrameDecoder } from '../../runtimes/nodejs/decoder.ts'
import { LIMIT, ProtocolError, TYPE } from '../../runtimes/nodejs/protocol.ts'
import { FrameWriter } from '../../runtimes/nodejs/writer.ts'
import { vectorFiles } from '../../runtimes/vectors/generate.ts'

interface FrameVector {
  readonly name: string
  readonly type: keyof typeof TYPE
  readonly end: boolean
  readonly id: number
  readonly fields: Readonly<Record<string, unknown>>
  readonly hex: string
}

interface HeadVector {
  readonly name: string
  readonly type: string
  readonly method?: string
  readonly path?: string
  readonly query?: string
  readonly headers: readonly string[]
  readonly hex: string
}

interface Seen {
  readonly type: number
  readonly flags: number
  readonly id: number
  readonly payload: string
}

function readVectors(name: string): string {
  return readFileSync(new URL(`../../runtimes/vectors/${name}.json`, import.meta.url), 'utf8')
}

const FRAMES: readonly FrameVector[] = JSON.parse(readVectors('frames'))
const HEADS: readonly HeadVector[] = JSON.parse(readVectors('heads'))
assert.ok(FRAMES.length > 5 && HEADS.length > 5)

/** Decodes a stream that arrives in chunks of these sizes (the last size is used to the end). */
function decode(stream: Buffer, sizes: readonly number[]): readonly Seen[] {
  const seen: Seen[] = []
  const decoder = new FrameDecoder((type, flags, id, bytes, start, end) => {
    seen.push({ type, flags, id, payload: bytes.toString('hex', start, end) })
  })
  // One buffer for all chunks, as the socket has: what is kept has to be copied.
  const shared = Buffer.alloc(Math.max(...sizes, 1))
  for (let at = 0, turn = 0; at < stream.length; turn += 1) {
    const size = Math.min(sizes[Math.min(turn, sizes.length - 1)] ?? 1, stream.length - at)
    stream.copy(shared, 0, at, at + size)
    decoder.push(shared, size)
    shared.fill(0xee)
    at += size
  }
  return seen
}

/** Takes what a writer writes; `slow` says whether it stays in the queue. */
class Sink {
  readonly chunks: Buffer[] = []
  writableLength = 0
  corked = 0

  write(bytes: Uint8Array): boolean {
    this.chunks.push(Buffer.from(bytes))
    return true
  }

  cork(): void {
    this.corked += 1
  }

  uncork(): void {
    this.corked -= 1
  }

  get hex(): string {
    return Buffer.concat(this.chunks).toString('hex')
  }
}

/** DATA may be handed on in parts: neighbours of one call become one, with the flags of the last. */
function merged(frames: readonly Seen[]): readonly Seen[] {
  const all: Seen[] = []
  for (const frame of frames) {
    const before = all.at(-1)
    if (frame.type === TYPE.DATA && before?.type === TYPE.DATA && before.id === frame.id) {
      all[all.length - 1] = { ...frame, payload: before.payload + frame.payload }
    } else all.push(frame)
  }
  return all
}

describe('runner vectors', () => {
  it('the committed files are what the generator makes', () => {
    for (const [name, text] of vectorFiles()) {
      const committed: unknown = JSON.parse(
        readFileSync(new URL(`../../runtimes/vectors/${name}`, import.meta.url), 'utf8'),
      )
      assert.deepEqual(committed, JSON.parse(text), name)
    }
  })

  for (const vector of FRAMES) {
    it(`the Node runner reads: ${vector.name}`, () => {
      const stream = Buffer.from(vector.hex, 'hex')
      const expected = {
        type: TYPE[vector.type],
        flags: vector.end ? 1 : 0,
        id: vector.id,
        payload: vector.hex.slice(24),
      }
      for (const sizes of [[stream.length], [1], [7], [12], [13, 2]]) {
        assert.deepEqual(merged(decode(stream, sizes)), [expected])
      }
    })
  }

  for (const vector of HEADS.filter(({ type }) => type === 'REQUEST')) {
    it(`the Node runner splits the head: ${vector.name}`, () => {
      const bytes = Buffer.from(vector.hex, 'hex')
      const { method, path, query, headers } = vector
      assert.deepEqual(headLines(bytes, 0, bytes.length), [method, path, query, ...headers])
    })
  }
})

describe('runner frame writer', () => {
  const byName = new Map(FRAMES.map((vector) => [vector.name, vector]))
  const rows: readonly (readonly [string, (writer: FrameWriter) => void])[] = [
    ['ready', (w) => w.text(TYPE.READY, 0, -1, '{"ok":true}')],
    ['smallest response', (w) => w.responseText(1, 1, 200, '', '')],
    [
      'response with headers and a whole body',
      (w) => w.responseText(7, 1, 404, 'content-type\napplication/json\nx-a\nü', '{"a":1}'),
    ],
    [
      'response with headers and a whole body',
      (w) =>
        w.responseBytes(
          7,
          1,
          404,
          'content-type\napplication/json\nx-a\nü',
          Buffer.from('({"a":1})'),
          1,
          8,
        ),
    ],
    ['last data', (w) => w.data(2, 1, Buffer.from('00ff', 'hex'), 0, 2)],
    ['largest window', (w) => w.window(2, 0xff_ff_ff_ff)],
    ['error without text', (w) => w.text(TYPE.ERROR, 9, 4, '')],
    ['log line of a call', (w) => w.text(TYPE.LOG, 9, 1, 'Grüße')],
    [
      'pong with the longest payload',
      (w) => w.pong(5, Buffer.from(`00${'ab'.repeat(64)}`, 'hex'), 1, 65),
    ],
  ]
  for (const [name, write] of rows) {
    it(`encodes: ${name}`, () => {
      const sink = new Sink()
      const writer = new FrameWriter(sink, () => false)
      write(writer)
      writer.flush()
      assert.equal(sink.hex, byName.get(name)?.hex)
    })
  }

  it('a batch that the kernel has not taken is left alone', () => {
    const sink = new Sink()
    const kept: Uint8Array[] = []
    sink.write = (bytes): boolean => {
      kept.push(bytes)
      sink.writableLength += bytes.length
      return false
    }
    const writer = new FrameWriter(sink, () => false)
    for (let id = 1; id <= 3; id += 1) {
      writer.text(TYPE.LOG, id, 1, `line ${id}`)
      writer.flush()
    }
    assert.match(Buffer.concat(kept).toString('latin1'), /line 1.*line 2.*line 3/s)
  })
})

describe('runner frame decoder', () => {
  const frame = fc.record({
    type: fc.oneof(fc.constant(TYPE.DATA), fc.integer({ min: 0, max: 255 })),
    flags: fc.integer({ min: 0, max: 255 }),
    id: fc.oneof(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 0xff_ff_ff_ff })),
    payload: fc.uint8Array({ maxLength: 300 }),
  })

  it('cuts any stream into the same frames, however it is split', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { minLength: 1, maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 8 }),
        (frames, sizes) => {
          const stream = Buffer.concat(
            frames.map(({ type, flags, id, payload }) => {
              const prefix = Buffer.alloc(12)
              prefix.writeUInt32BE(payload.length, 0)
              prefix.writeUInt8(type, 4)
              prefix.writeUInt8(flags, 5)
              prefix.writeUInt32BE(id, 8)
              return Buffer.concat([prefix, payload])
            }),
          )
          const expected = frames.map(({ type, flags, id, payload }) => ({
            type,
            flags,
            id,
            payload: Buffer.from(payload).toString('hex'),
          }))
          assert.deepEqual(merged(decode(stream, sizes)), merged(expected))
        },
      ),
      { numRuns: 200 },
    )
  })

  it('hostile bytes end in a protocol error or in silence, with at most one frame in memory', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 2_000 }),
        fc.integer({ min: 1, max: 64 }),
        (bytes, size) => {
          try {
            decode(Buffer.from(bytes), [size])
          } catch (error) {
            assert.ok(error instanceof ProtocolError)
            assert.equal(error.code, 'FRAME_TOO_LARGE')
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('a length above the limit is refused before any of it is kept', () => {
    const prefix = Buffer.alloc(12)
    prefix.writeUInt32BE(LIMIT.payloadBytes + 1, 0)
    assert.throws(() => decode(prefix, [12]), { code: 'FRAME_TOO_LARGE' })
    assert.throws(() => decode(prefix, [5]), { code: 'FRAME_TOO_LARGE' })
  })

  it('DATA that is cut is handed on as it comes, and only its last part ends the body', () => {
    const prefix = Buffer.from([0, 0, 0, 4, TYPE.DATA, 1, 0, 0, 0, 0, 0, 7])
    const seen = decode(Buffer.concat([prefix, Buffer.from('abcd')]), [13, 2, 1])
    assert.deepEqual(
      seen.map(({ flags, payload }) => [flags, Buffer.from(payload, 'hex').toString()]),
      [
        [0, 'a'],
        [0, 'bc'],
        [1, 'd'],
      ],
    )
  })

  it('hands nothing on after it was stopped', () => {
    let frames = 0
    const decoder = new FrameDecoder(() => {
      frames += 1
      decoder.stop()
    })
    decoder.push(Buffer.alloc(24), 24)
    assert.equal(frames, 1)
  })
})
