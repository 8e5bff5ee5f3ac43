/** A request target's path without the leading `/`, and its query without the leading `?`. */
export interface Target {
  readonly path: string
  readonly query: string
}

/**
 * Splits a request target. The absolute form (`http://host/fn`) must be understood by every server (RFC 9112 section
 * 3.2.2); nothing is decoded or normalised, so the function sees what the caller sent.
 */
export function readTarget(url: string): Target {
  const start = url.charCodeAt(0) === 0x2f ? 1 : skipOrigin(url)
  const mark = url.indexOf('?', start)
  if (mark < 0) return { path: url.slice(start), query: '' }
  return { path: url.slice(start, mark), query: url.slice(mark + 1) }
}

function skipOrigin(url: string): number {
  const origin = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*\/?/i.exec(url)
  return origin === null ? 0 : origin[0].length
}

/** False when an escape in the path stands for nothing. */
export function isDecodable(path: string): boolean {
  if (!path.includes('%')) return true
  try {
    decodeURIComponent(path)
    return true
  } catch {
    return false
  }
}

/** What a caller wishes, ms. */
export function readDeadlineMs(value: string | undefined): number | undefined | 'invalid' {
  if (value === undefined) return undefined
  return /^[1-9][0-9]{0,9}$/.test(value) ? Number(value) : 'invalid'
}
