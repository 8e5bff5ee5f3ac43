/** A body that has come whole: as Latin-1 text (lossless, one byte each, cheap when small) or as bytes. */
export type WholeBody = string | Buffer

/** Turns a whole body into bytes. */
export function bodyBytes(body: WholeBody): Buffer {
  return typeof body === 'string' ? Buffer.from(body, 'latin1') : body
}

// oxlint-disable-next-line no-control-regex -- the range of ASCII is meant
const NOT_ASCII = /[^\x00-\x7f]/

/** Turns a whole body into text, read as UTF-8; as in the web standard and in Express, a byte order mark is no part of it. */
export function bodyText(body: WholeBody): string {
  if (typeof body === 'string' && !NOT_ASCII.test(body)) return body
  const bytes = bodyBytes(body)
  const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf
  return bytes.utf8Slice(marked ? 3 : 0, bytes.length)
}
