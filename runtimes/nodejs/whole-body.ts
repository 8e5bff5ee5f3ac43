/** A body that has come whole: as Latin-1 text (lossless, one byte each, cheap when small) or as bytes. */
export type WholeBody = string | Buffer

/** Turns a whole body into bytes. */
export function bodyBytes(body: WholeBody): Buffer {
  return typeof body === 'string' ? Buffer.from(body, 'latin1') : body
}

// oxlint-disable-next-line no-control-regex -- the range of ASCII is meant
const NOT_ASCII = /[^\x00-\x7f]/

/** Turns a whole body into text, read as UTF-8. */
export function bodyText(body: WholeBody): string {
  if (typeof body !== 'string') return body.toString('utf8')
  return NOT_ASCII.test(body) ? Buffer.from(body, 'latin1').toString('utf8') : body
}
