import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import {
  CANCEL,
  FRAME,
  FrameDecoder,
  FrameWriter,
  ProtocolError,
  headBytes,
  readText,
  responseHeaders,
  u16At,
  u32At,
} from '#agent/invoke/frames/index.ts'

interface Vector {
  readonly name: string
  readonly from: 'agent' | 'runner'
  readonly type: string
  readonly end: boolean
  readonly id: number
  readonly fields: {
    readonly json?: string
    readonly deadlineMs?: number
    readonly method?: string
    readonly path?: string
    readonly query?: string
    readonly headers?: readonly string[]
    readonly bodyHex?: string
    readonly status?: number
    readonly bytes?: number
    readonly reason?: number
    readonly kind?: number
    readonly level?: number
    readonly text?: string
  }
  readonly hex: string
}

const vectors: readonly Vector[] = load('frames.json')
interface StreamVector {
  readonly receiver: string
  readonly name: string
  readonly error: string | null
  readonly hex: string
}
const streams: readonly StreamVector[] = load('streams.json')

function load(name: string) {
  const path = new URL(`../../runtimes/vectors/${name}`, import.meta.url)
  return JSON.parse(readFileSync(path, 'utf8'))
}

/** The vector's frame as our writer encodes it. */
function encode({ type, end, id, fields }: Vector): string {
  const chunks: Buffer[] = []
  const writer = new FrameWriter({
    backlogBytes: 0,
    write: (chunk) => chunks.push(Buffer.from(chunk)),
    cork: () => {},
    uncork: () => {},
  })
  const body = Buffer.from(fields.bodyHex ?? '', 'hex')
  const flags = end ? 1 : 0
  switch (type) {
    case 'REQUEST': {
      const lines = [fields.method, fields.path, fields.query, ...(fields.headers ?? [])]
      const head = lines.join('\n')
      const deadlineMs = fields.deadlineMs ?? 0
      writer.request(id, flags, deadlineMs, head, headBytes(head), body, body.length)
      break
    }
    case 'DATA':
      if (end && body.length === 0) writer.end(id)
      else writer.data(id, flags, body, 0, body.length)
      break
    case 'WINDOW':
      writer.window(id, fields.bytes ?? 0)
      break
    case 'CANCEL': {
      const reason = Object.values(CANCEL).find((known) => known === fields.reason)
      assert(reason !== undefined)
      writer.cancel(id, reason)
      break
    }
    case 'PING':
    case 'PONG':
      writer.control(FRAME[type === 'PING' ? 'ping' : 'pong'], id, body)
      break
    default: {
      const code = Object.entries(FRAME).find(([name]) => name.toUpperCase() === type)?.[1]
      assert(code !== undefined, type)
      writer.control(code, id, Buffer.from(fields.json ?? ''))
    }
  }
  writer.flush()
  return Buffer.concat(chunks).toString('hex')
}

/** A runner's frame as our decoder and readers see it. */
function decode(hex: string): object {
  const seen: object[] = []
  const decoder = new FrameDecoder({
    frame(type, flags, id, buffer, start, end) {
      const name =
        Object.entries(FRAME)
          .find(([, code]) => code === type)?.[0]
          .toUpperCase() ?? ''
      const fields = fieldsOf(name, buffer, start, end)
      seen.push({ type: name, end: (flags & 1) === 1, id, fields })
    },
  })
  decoder.push(Buffer.from(hex, 'hex'))
  assert.equal(seen.length, 1)
  return seen[0] ?? {}
}

function fieldsOf(type: string, buffer: Buffer, start: number, end: number): object {
  const bodyHex = (from: number): object =>
    from === end ? {} : { bodyHex: buffer.toString('hex', from, end) }
  switch (type) {
    case 'HELLO':
    case 'READY':
      return { json: readText(buffer, start, end) }
    case 'RESPONSE': {
      const bodyStart = start + 4 + u16At(buffer, start + 2)
      const headers = responseHeaders(buffer, start + 4, bodyStart)
      return {
        status: u16At(buffer, start),
        ...(headers.length > 0 ? { headers } : {}),
        ...bodyHex(bodyStart),
      }
    }
    case 'WINDOW':
      return { bytes: u32At(buffer, start) }
    case 'ERROR':
      return { kind: buffer[start], text: readText(buffer, start + 1, end) }
    case 'LOG':
      return { level: buffer[start], text: readText(buffer, start + 1, end) }
    default:
      return bodyHex(start)
  }
}

describe('frames that an agent sends are encoded to exactly the bytes of the vectors', () => {
  const sent = vectors.filter(({ from }) => from === 'agent')
  assert(sent.length > 5)
  for (const vector of sent) {
    it(vector.name, () => assert.equal(encode(vector), vector.hex))
  }
})

describe('frames that a runner sends are decoded to the fields of the vectors', () => {
  const received = vectors.filter(({ from }) => from === 'runner')
  assert(received.length > 5)
  for (const { name, type, end, id, fields, hex } of received) {
    it(name, () => assert.deepEqual(decode(hex), { type, end, id, fields }))
  }
})

describe('streams that break a limit of the frame itself are refused by the decoder', () => {
  const refused = streams.filter(
    ({ receiver, error }) =>
      receiver === 'agent' && (error === 'FRAME_TOO_LARGE' || error === 'PAYLOAD_TOO_LONG'),
  )
  assert(refused.length > 0)
  for (const { name, hex } of refused) {
    it(name, () => {
      const decoder = new FrameDecoder({ frame: () => assert.fail('a frame came out') })
      assert.throws(() => decoder.push(Buffer.from(hex, 'hex')), ProtocolError)
    })
  }
})
