/** Encodes the frames of the vectors by hand, on purpose without any of the codecs that read them. */
export const TYPES = {
  HELLO: 0x01,
  WELCOME: 0x02,
  INIT: 0x03,
  READY: 0x04,
  SHUTDOWN: 0x05,
  REQUEST: 0x10,
  RESPONSE: 0x11,
  DATA: 0x12,
  WINDOW: 0x13,
  CANCEL: 0x14,
  ERROR: 0x15,
  LOG: 0x20,
  PING: 0x30,
  PONG: 0x31,
} as const

export type TypeName = keyof typeof TYPES
export type Fields = Record<string, string | number | readonly string[]>

export const utf8 = (value: string): Buffer => Buffer.from(value, 'utf8')

function uint(bytes: 1 | 2 | 4, value: number): Buffer {
  const out = Buffer.alloc(bytes)
  out.writeUIntBE(value, 0, bytes)
  return out
}

export function frame(
  type: number,
  flags: number,
  id: number,
  payload: Buffer,
  length?: number,
): Buffer {
  const prefix = Buffer.alloc(12)
  const view = new DataView(prefix.buffer, prefix.byteOffset, 12)
  view.setUint32(0, length ?? payload.length)
  view.setUint8(4, type)
  view.setUint8(5, flags)
  view.setUint16(6, 0)
  view.setUint32(8, id)
  return Buffer.concat([prefix, payload])
}

export function text(fields: Fields, key: string): string {
  const value = fields[key]
  return typeof value === 'string' ? value : ''
}

function number(fields: Fields, key: string): number {
  const value = fields[key]
  return typeof value === 'number' ? value : 0
}

export function list(fields: Fields, key: string): readonly string[] {
  const value = fields[key]
  return Array.isArray(value) ? (value as readonly string[]) : []
}

export function headText(fields: Fields): string {
  const lines = list(fields, 'headers')
  if (fields['method'] === undefined) return lines.join('\n')
  return [text(fields, 'method'), text(fields, 'path'), text(fields, 'query'), ...lines].join('\n')
}

const body = (fields: Fields): Buffer => Buffer.from(text(fields, 'bodyHex'), 'hex')

export const PAYLOAD: Record<TypeName, (fields: Fields) => Buffer> = {
  HELLO: (f) => utf8(text(f, 'json')),
  WELCOME: (f) => utf8(text(f, 'json')),
  INIT: (f) => utf8(text(f, 'json')),
  READY: (f) => utf8(text(f, 'json')),
  SHUTDOWN: () => Buffer.alloc(0),
  REQUEST: (f) => {
    const headBytes = utf8(headText(f))
    return Buffer.concat([
      uint(4, number(f, 'deadlineMs')),
      uint(2, headBytes.length),
      headBytes,
      body(f),
    ])
  },
  RESPONSE: (f) => {
    const headBytes = utf8(headText(f))
    return Buffer.concat([
      uint(2, number(f, 'status')),
      uint(2, headBytes.length),
      headBytes,
      body(f),
    ])
  },
  DATA: body,
  WINDOW: (f) => uint(4, number(f, 'bytes')),
  CANCEL: (f) => uint(1, number(f, 'reason')),
  ERROR: (f) => Buffer.concat([uint(1, number(f, 'kind')), utf8(text(f, 'text'))]),
  LOG: (f) => Buffer.concat([uint(1, number(f, 'level')), utf8(text(f, 'text'))]),
  PING: body,
  PONG: body,
}

export interface FrameVector {
  readonly name: string
  readonly from: 'agent' | 'runner'
  readonly type: TypeName
  readonly end: boolean
  readonly id: number
  readonly fields: Fields
}

export const hexOf = (value: string): string => utf8(value).toString('hex')

export const encode = (vector: FrameVector): Buffer =>
  frame(TYPES[vector.type], vector.end ? 1 : 0, vector.id, PAYLOAD[vector.type](vector.fields))
