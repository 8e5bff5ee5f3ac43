import * as fc from 'fast-check'
import { frameBytes, responseBytes, TYPE } from './frame-peer.ts'

/** One thing that a hostile side puts on the wire: a frame, or bytes that are none. */
export interface Move {
  readonly type: number
  readonly id: number
  readonly payload: Uint8Array
  readonly end: boolean
  /** What the header says instead of the payload's length. */
  readonly length?: number | undefined
  /** How often it is sent, one after the other. */
  readonly times: number
}

const HEADER_BYTES = 12

/** Bytes of all moves, in order. */
export function bytesOf(moves: readonly Move[]): Buffer {
  return Buffer.concat(
    moves.flatMap(({ type, id, payload, end, length, times }) => {
      const options = { end, ...(length === undefined ? {} : { length }) }
      const frame = frameBytes(type, id, Buffer.from(payload), options)
      return Array.from({ length: times }, () => frame)
    }),
  )
}

/** Calls' ids, those of nobody, and those that only an attacker sends. */
const anId = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 5 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, 6, 64, 65_536, 0x7fff_ffff, 0xffff_ffff) },
)

const someBytes = fc.oneof(
  { weight: 6, arbitrary: fc.uint8Array({ maxLength: 80 }) },
  {
    weight: 1,
    // Around the window, and around the limit of a frame.
    arbitrary: fc
      .constantFrom(65_536, 131_072, 262_144, 262_145, 1_048_577, 1_114_112)
      .map((bytes) => new Uint8Array(bytes).fill(120)),
  },
)

const once = { length: undefined, times: 1 } as const
const often = fc.oneof(
  { weight: 12, arbitrary: fc.constant(1) },
  { weight: 1, arbitrary: fc.constantFrom(3, 70) },
)

/** Any type, any payload: mostly nonsense. */
const anything: fc.Arbitrary<Move> = fc.record({
  type: fc.oneof(fc.constantFrom(...Object.values(TYPE)), fc.integer({ min: 0, max: 255 })),
  id: anId,
  payload: someBytes,
  end: fc.boolean(),
  times: often,
})

const lie: fc.Arbitrary<Move> = fc.record({
  type: fc.constantFrom(...Object.values(TYPE)),
  id: anId,
  payload: fc.uint8Array({ maxLength: 20 }),
  end: fc.boolean(),
  length: fc.constantFrom(0, 1, 13, 65, 4_096, 1_114_112, 1_114_113, 0x7fff_ffff, 0xffff_ffff),
  times: fc.constant(1),
})

const heads = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom([], ['x', 'y'], ['content-type', 'a', 'x-a', '']) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(['x'], ['X', 'y'], ['x y', 'z'], ['', 'y'], ['x', 'a\rb']),
  },
  { weight: 1, arbitrary: fc.array(fc.string({ maxLength: 8 }), { maxLength: 4 }) },
)
const statuses = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(200, 204, 404, 599) },
  { weight: 1, arbitrary: fc.constantFrom(0, 100, 199, 600, 65_535) },
)

const response: fc.Arbitrary<Move> = fc
  .record({ id: anId, status: statuses, headers: heads, body: someBytes, end: fc.boolean() })
  .map(({ id, status, headers, body, end }) => {
    const payload = responseBytes(id, Buffer.from(body), { status, headers }).subarray(12)
    return { type: TYPE.response, id, payload, end, ...once }
  })

const data: fc.Arbitrary<Move> = fc.record({
  type: fc.constant(TYPE.data),
  id: anId,
  payload: someBytes,
  end: fc.boolean(),
  times: often,
})

const error: fc.Arbitrary<Move> = fc
  .record({ id: anId, kind: fc.constantFrom(0, 2, 3, 4, 5, 6, 255), text: fc.string() })
  .map(({ id, kind, text }) => {
    const payload = Buffer.concat([Buffer.from([kind]), Buffer.from(text)])
    return { type: TYPE.error, id, payload, end: false, ...once }
  })

const grant: fc.Arbitrary<Move> = fc
  .record({ id: anId, bytes: fc.constantFrom(0, 1, 65_536, 262_144, 0x7fff_ffff, 0xffff_ffff) })
  .map(({ id, bytes }) => ({ type: TYPE.window, id, payload: u32(bytes), end: false, ...once }))

const ping: fc.Arbitrary<Move> = fc.record({
  type: fc.constantFrom(TYPE.ping, TYPE.pong),
  id: anId,
  payload: fc.uint8Array({ maxLength: 66 }),
  end: fc.boolean(),
  times: often,
})

/** What a runner that works sends too, in any order, with nonsense here and there. */
export const runnerMoves = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: response },
    { weight: 8, arbitrary: data },
    { weight: 3, arbitrary: error },
    { weight: 2, arbitrary: grant },
    { weight: 2, arbitrary: ping },
    { weight: 1, arbitrary: anything },
    { weight: 1, arbitrary: lie },
  ),
  { maxLength: 24 },
)

const PATHS = ['/echo', '/pass', '/early', '/sleep', '/throw', '/flood', '/status', '/bad', '']

const request: fc.Arbitrary<Move> = fc
  .record({
    id: anId,
    deadlineMs: fc.constantFrom(0, 1, 30_000, 0xffff_ffff),
    lines: fc.oneof(
      {
        weight: 8,
        arbitrary: fc.constantFrom(...PATHS).map((path) => ['POST', path, 'q=1', 'x', 'y']),
      },
      { weight: 1, arbitrary: fc.array(fc.string({ maxLength: 8 }), { maxLength: 6 }) },
    ),
    body: someBytes,
    lieBytes: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, fc.constantFrom(-1, 1, 9_999)),
    end: fc.boolean(),
  })
  .map(({ id, deadlineMs, lines, body, lieBytes, end }) => {
    const head = Buffer.from(lines.join('\n'))
    const headBytes = Buffer.alloc(2)
    headBytes.writeUInt16BE(Math.max(0, head.length + lieBytes))
    const payload = Buffer.concat([u32(deadlineMs), headBytes, head, body])
    return { type: TYPE.request, id, payload, end, ...once }
  })

const cancel: fc.Arbitrary<Move> = fc.record({
  type: fc.constant(TYPE.cancel),
  id: anId,
  payload: fc.uint8Array({ maxLength: 2 }),
  end: fc.boolean(),
  times: often,
})

/** The same of an agent. SHUTDOWN, and a WELCOME that refuses, would end a runner rightly: they are left out. */
export const agentMoves = fc
  .array(
    fc.oneof(
      { weight: 10, arbitrary: request },
      { weight: 8, arbitrary: data },
      { weight: 3, arbitrary: cancel },
      { weight: 3, arbitrary: grant },
      { weight: 2, arbitrary: ping },
      { weight: 1, arbitrary: anything },
      { weight: 1, arbitrary: lie },
    ),
    { maxLength: 24 },
  )
  .map((moves) =>
    upToLie(moves.filter(({ type }) => type !== TYPE.shutdown && type !== TYPE.welcome)),
  )

/** Behind a lie about a length the bytes mean something else, and a SHUTDOWN may be among it. */
function upToLie(moves: readonly Move[]): Move[] {
  const at = moves.findIndex(({ length }) => length !== undefined)
  if (at === -1) return [...moves]
  const { payload, length = 0 } = moves[at] ?? { payload: '' }
  // What it leaves over must not be enough for a header.
  return moves.slice(0, payload.length - length < HEADER_BYTES ? at + 1 : at)
}

/** Sizes of the pieces that a stream is cut into, one after the other and again. */
export const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(70_000)), {
  minLength: 1,
  maxLength: 10,
})

/** @yields the pieces; at most a thousand, the last one takes the rest */
export function* pieces(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  let at = 0
  for (let index = 0; at < bytes.length; index++) {
    const size = index < 1_000 ? Math.max(1, sizes[index % sizes.length] ?? 1) : bytes.length
    yield bytes.subarray(at, at + size)
    at += size
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
