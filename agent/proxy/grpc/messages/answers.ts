import type { HeaderList } from '#agent/invoke/index.ts'
import { frameFor, PREFIX_BYTES } from '../server/index.ts'
import { varintBytes, writeVarint } from './wire.ts'

/** What `shoal.v1.InvokeResponse`, and the first `InvokeChunk`, say beside the payload. */
export interface InvokeAnswer {
  /** 200 to 599. */
  readonly status: number
  /** Name, value, name, value, ...; no name twice. */
  readonly metadata: HeaderList
  readonly contentType: string
}

/** tinyFaaS's `Response` as a frame. @param text - UTF-8 */
export function textFrame(text: Buffer): Buffer {
  const frame = frameFor(fieldBytes(text.length))
  writeBytes(frame, PREFIX_BYTES, 0x0a, text)
  return frame
}

/** `InvokeResponse` as a frame; or `InvokeChunk`, whose fields have the same numbers, without an answer for all but the first. */
export function answerFrame(payload: Buffer, answer: InvokeAnswer | undefined): Buffer {
  const payloadBytes = fieldBytes(payload.length)
  if (answer === undefined) {
    const frame = frameFor(payloadBytes)
    writeBytes(frame, PREFIX_BYTES, 0x0a, payload)
    return frame
  }
  const { status, metadata, contentType } = answer
  const typeBytes = Buffer.byteLength(contentType)
  const entries = entriesOf(metadata)
  const frame = frameFor(
    payloadBytes + 1 + varintBytes(status) + entries.length + fieldBytes(typeBytes),
  )
  let at = writeBytes(frame, PREFIX_BYTES, 0x0a, payload)
  frame[at++] = 0x10
  at = writeVarint(frame, at, status)
  at += entries.copy(frame, at)
  writeText(frame, at, 0x22, contentType, typeBytes)
  return frame
}

/** The map as its entries, each a message of name and value. */
function entriesOf(metadata: HeaderList): Buffer {
  if (metadata.length === 0) return NO_BYTES
  const parts: Buffer[] = []
  for (let at = 0; at + 1 < metadata.length; at += 2) {
    const name = metadata[at] ?? ''
    const value = metadata[at + 1] ?? ''
    const nameBytes = Buffer.byteLength(name)
    const valueBytes = Buffer.byteLength(value)
    const entryBytes = textBytes(nameBytes) + textBytes(valueBytes)
    const entry = Buffer.allocUnsafe(textBytes(entryBytes))
    entry[0] = 0x1a
    let end = writeVarint(entry, 1, entryBytes)
    entry[end] = 0x0a
    end = writeVarint(entry, end + 1, nameBytes)
    end += entry.utf8Write(name, end)
    entry[end] = 0x12
    end = writeVarint(entry, end + 1, valueBytes)
    entry.utf8Write(value, end)
    parts.push(entry)
  }
  return Buffer.concat(parts)
}

/** A field with its tag (of one byte) and length. */
function textBytes(bytes: number): number {
  return 1 + varintBytes(bytes) + bytes
}

/** The same, but an empty value is not written at all. */
function fieldBytes(bytes: number): number {
  return bytes === 0 ? 0 : textBytes(bytes)
}

function writeBytes(frame: Buffer, at: number, tag: number, bytes: Buffer): number {
  if (bytes.length === 0) return at
  frame[at] = tag
  const start = writeVarint(frame, at + 1, bytes.length)
  return start + bytes.copy(frame, start)
}

function writeText(frame: Buffer, at: number, tag: number, text: string, bytes: number): void {
  if (bytes === 0) return
  frame[at] = tag
  frame.utf8Write(text, writeVarint(frame, at + 1, bytes))
}

const NO_BYTES = Buffer.alloc(0)
