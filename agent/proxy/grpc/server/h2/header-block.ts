import type { HeaderList } from '#agent/invoke/index.ts'

/** "This table has no room": encoders say so once when the peer has changed what its table may hold (RFC 7541, section 4.2). */
export const EMPTY_TABLE = 0x20

/** Numbers of the static table. */
const STATUS_200 = 8
const CONTENT_TYPE = 31

/**
 * Encodes fields without a table of our own: our answers have few fields and nearly always the same, so blocks are made once, and a
 * connection keeps no state for them.
 *
 * @param fields - Name, value, ...; names lower-case, pseudo fields first. Text is ASCII.
 */
export function encodeHeader(fields: HeaderList): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const name = fields[at] ?? ''
    const value = fields[at + 1] ?? ''
    if (name === ':status' && value === '200') {
      parts.push(Buffer.from([0x80 | STATUS_200]))
      continue
    }
    if (name === 'content-type') parts.push(integer(0x0f, CONTENT_TYPE))
    else parts.push(Buffer.from([0]), text(name))
    parts.push(text(value))
  }
  return Buffer.concat(parts)
}

function text(value: string): Buffer {
  return Buffer.concat([integer(0x7f, value.length), Buffer.from(value, 'latin1')])
}

/** Section 5.1; the bits above the prefix stay 0. */
function integer(mask: number, value: number): Buffer {
  if (value < mask) return Buffer.from([value])
  const bytes = [mask]
  let rest = value - mask
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80)
  bytes.push(rest)
  return Buffer.from(bytes)
}
