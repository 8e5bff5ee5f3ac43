import assert from 'node:assert/strict'
import { it } from 'node:test'
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import * as fc from 'fast-check'
import {
  answerFrame,
  readData,
  readInvokeRequest,
  textFrame,
} from '#agent/proxy/grpc/messages/index.ts'
import { PREFIX_BYTES, STATUS, StatusError } from '#agent/proxy/grpc/server/index.ts'
import {
  DataSchema,
  InvokeChunkSchema,
  InvokeRequestSchema,
  InvokeResponseSchema,
  ResponseSchema,
} from '#proto/index.ts'

const text = fc.string({ unit: 'binary', maxLength: 200 }).map((value) => value.toWellFormed())
const bytes = fc.uint8Array({ maxLength: 300 })
const map = fc.dictionary(fc.string({ maxLength: 20 }), text, { maxKeys: 5 })

const requests = fc.record({
  function: text,
  payload: bytes,
  metadata: map,
  contentType: text,
  method: text,
  path: text,
  query: text,
  deadlineMs: fc.nat(2 ** 32 - 1),
})

/** What the generated code makes of it; `undefined` when it refuses it. */
function generated<T extends DescMessage>(schema: T, wire: Buffer): MessageShape<T> | undefined {
  try {
    return fromBinary(schema, wire)
  } catch {
    return undefined
  }
}

/** What ours makes of it; the same. */
function ours<T>(read: (wire: Buffer) => T, wire: Buffer): T | undefined {
  try {
    return read(wire)
  } catch (error) {
    assert.ok(error instanceof StatusError && error.status.code === STATUS.internal, String(error))
    return undefined
  }
}

function sameRequest(wire: Buffer): boolean {
  const theirs = generated(InvokeRequestSchema, wire)
  const read = ours(readInvokeRequest, wire)
  if (theirs === undefined || read === undefined) {
    assert.equal(read, theirs)
    return false
  }
  const { $typeName: _name, $unknown: _unknown, payload, metadata, ...rest } = theirs
  const names = read.metadata.filter((_, at) => at % 2 === 0)
  const metadataRead = Object.fromEntries(
    names.map((name, at) => [name, read.metadata[at * 2 + 1] ?? '']),
  )
  const { payload: payloadRead, metadata: _metadata, ...restRead } = read
  assert.deepEqual(restRead, rest)
  assert.deepEqual(metadataRead, { ...metadata })
  assert.ok(payloadRead.equals(payload))
  return true
}

function sameData(wire: Buffer): boolean {
  const theirs = generated(DataSchema, wire)
  const read = ours(readData, wire)
  if (theirs === undefined || read === undefined) {
    assert.equal(read, theirs)
    return false
  }
  assert.equal(read.functionIdentifier, theirs.functionIdentifier)
  assert.equal(read.data.toString(), theirs.data)
  return true
}

it('InvokeRequest: what the generated code writes is read as what it was', () => {
  fc.assert(
    fc.property(requests, (request) => {
      const wire = Buffer.from(toBinary(InvokeRequestSchema, create(InvokeRequestSchema, request)))
      assert.ok(sameRequest(wire))
    }),
    { numRuns: 500 },
  )
})

it('Data: what the generated code writes is read as what it was', () => {
  fc.assert(
    fc.property(text, text, (functionIdentifier, data) => {
      const message = create(DataSchema, { functionIdentifier, data })
      assert.ok(sameData(Buffer.from(toBinary(DataSchema, message))))
    }),
    { numRuns: 500 },
  )
})

it('broken, cut and strange messages are read, or refused, as the generated code does', () => {
  // Fields in any order and number, known or not, of any wire type, with a byte changed here and there.
  const field = fc.oneof(
    fc
      .tuple(fc.constantFrom(0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x4a, 0x7a), bytes)
      .map(([tag, value]) => Buffer.concat([Buffer.from([tag, ...varint(value.length)]), value])),
    fc
      .tuple(fc.constantFrom(0x40, 0x08, 0x48), fc.nat())
      .map(([tag, value]) => Buffer.from([tag, ...varint(value)])),
    requests.map((request) =>
      Buffer.from(toBinary(InvokeRequestSchema, create(InvokeRequestSchema, request))),
    ),
    bytes.map((value) => Buffer.from(value)),
  )
  let read = 0
  let refused = 0
  fc.assert(
    fc.property(
      fc.array(field, { maxLength: 5 }),
      fc.nat(),
      fc.option(fc.tuple(fc.nat(), fc.nat(255)), { nil: undefined }),
      (fields, cut, change) => {
        const whole = Buffer.concat(fields)
        if (change !== undefined && whole.length > 0) whole[change[0] % whole.length] = change[1]
        for (const wire of [whole, whole.subarray(0, cut % (whole.length + 1))]) {
          if (sameRequest(wire)) read += 1
          else refused += 1
          sameData(wire)
        }
      },
    ),
    { numRuns: 2_000 },
  )
  assert.ok(read > 100 && refused > 100, `${read} read, ${refused} refused`)
})

it('answers are written as the generated code reads them', () => {
  fc.assert(
    fc.property(
      bytes,
      fc.integer({ min: 200, max: 599 }),
      map,
      text,
      (payload, status, metadata, contentType) => {
        const list = Object.entries(metadata).flat()
        const frame = answerFrame(Buffer.from(payload), { status, metadata: list, contentType })
        for (const schema of [InvokeResponseSchema, InvokeChunkSchema]) {
          const read = fromBinary(schema, messageOf(frame))
          assert.ok(Buffer.from(payload).equals(read.payload))
          assert.deepEqual(
            { status: read.status, metadata: { ...read.metadata }, type: read.contentType },
            { status, metadata: { ...metadata }, type: contentType },
          )
        }
        const rest = fromBinary(
          InvokeChunkSchema,
          messageOf(answerFrame(Buffer.from(payload), undefined)),
        )
        assert.ok(Buffer.from(payload).equals(rest.payload))
        assert.equal(rest.status, 0)
        const response = fromBinary(ResponseSchema, messageOf(textFrame(Buffer.from(contentType))))
        assert.equal(response.response, contentType)
      },
    ),
    { numRuns: 500 },
  )
})

/** A frame's message; its prefix must tell the length. */
function messageOf(frame: Buffer): Buffer {
  assert.equal(frame[0], 0)
  assert.equal(frame.readUInt32BE(1), frame.length - PREFIX_BYTES)
  return frame.subarray(PREFIX_BYTES)
}

function varint(value: number): number[] {
  const out: number[] = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) out.push((rest & 0x7f) | 0x80)
  out.push(rest)
  return out
}
