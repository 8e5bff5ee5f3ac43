import { type DescMessage, fromBinary, type MessageShape } from '@bufbuild/protobuf'
import type { HeaderList } from '#agent/invoke/index.ts'
import { DataSchema, InvokeRequestSchema } from '#proto/index.ts'
import { STATUS, StatusError } from '../server/index.ts'
import { FieldReader } from './wire.ts'

// Reading by hand costs a tenth of what the generated code does, and no copy of the payload; `test/unit/grpc-messages.test.ts` holds
// both against each other.

/** tinyFaaS's `Data`. */
export interface DataCall {
  readonly functionIdentifier: string
  /** UTF-8. */
  readonly data: Buffer
}

/** `shoal.v1.InvokeRequest`. */
export interface InvokeCall {
  readonly function: string
  readonly payload: Buffer
  /** Name, value, name, value, ... */
  readonly metadata: HeaderList
  readonly contentType: string
  readonly method: string
  readonly path: string
  readonly query: string
  readonly deadlineMs: number
}

/** @throws StatusError `INTERNAL` */
export function readData(bytes: Buffer): DataCall {
  const reader = new FieldReader(bytes)
  let functionIdentifier = ''
  let data: Buffer = NO_BYTES
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x0a) functionIdentifier = reader.text()
    else if (tag === 0x12) data = reader.utf8()
    else reader.odd = true
  }
  if (!reader.odd) return { functionIdentifier, data }
  const read = decode(DataSchema, bytes)
  return { functionIdentifier: read.functionIdentifier, data: Buffer.from(read.data) }
}

/** @throws StatusError `INTERNAL` */
export function readInvokeRequest(bytes: Buffer): InvokeCall {
  const reader = new FieldReader(bytes)
  const call: Writable<InvokeCall> = { ...EMPTY }
  let metadata: string[] | undefined
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x0a) call.function = reader.text()
    else if (tag === 0x12) call.payload = reader.bytes()
    else if (tag === 0x1a) readEntry(reader, (metadata ??= []))
    else if (tag === 0x22) call.contentType = reader.text()
    else if (tag === 0x2a) call.method = reader.text()
    else if (tag === 0x32) call.path = reader.text()
    else if (tag === 0x3a) call.query = reader.text()
    else if (tag === 0x40) call.deadlineMs = reader.varint()
    else reader.odd = true
  }
  if (reader.odd) return decodeInvokeRequest(bytes)
  if (metadata !== undefined) call.metadata = metadata
  return call
}

/** An entry of a map, as the message that it is on the wire. */
function readEntry(parent: FieldReader, into: string[]): void {
  const reader = parent.message()
  let name = ''
  let value = ''
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x0a) name = reader.text()
    else if (tag === 0x12) value = reader.text()
    else reader.odd = true
  }
  if (reader.odd) parent.odd = true
  into.push(name, value)
}

function decodeInvokeRequest(bytes: Buffer): InvokeCall {
  const message = decode(InvokeRequestSchema, bytes)
  const { payload, metadata, contentType, method, path, query, deadlineMs } = message
  return {
    function: message.function,
    payload: Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength),
    metadata: Object.entries(metadata).flat(),
    contentType,
    method,
    path,
    query,
    deadlineMs,
  }
}

/** A message by the generated code. @throws StatusError `INTERNAL` */
export function decode<T extends DescMessage>(schema: T, bytes: Uint8Array): MessageShape<T> {
  try {
    return fromBinary(schema, bytes)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const message = `the message is no ${schema.typeName}: ${why}`
    throw new StatusError({ code: STATUS.internal, message }, { cause: error })
  }
}

const NO_BYTES = Buffer.alloc(0)

const EMPTY = {
  function: '',
  payload: NO_BYTES,
  metadata: [],
  contentType: '',
  method: '',
  path: '',
  query: '',
  deadlineMs: 0,
} as const satisfies InvokeCall

type Writable<T> = { -readonly [key in keyof T]: T[key] }
