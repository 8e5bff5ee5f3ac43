import { isUtf8 } from 'node:buffer'

export const TEXT = 'text/plain; charset=utf-8'
export const OCTETS = 'application/octet-stream'

/**
 * Content type of an answer whose function named none: text when it is UTF-8, else octets. Clients of tinyFaaS
 * get the same from Go's sniffing for all they care about: its text and its JSON are `text/plain; charset=utf-8`.
 */
export function guessContentType(body: Buffer): string {
  return isUtf8(body) ? TEXT : OCTETS
}

/** The same for the first chunk of a stream, which may end inside a character. */
export function guessStreamContentType(first: Buffer): string {
  return guessContentType(first.subarray(0, first.length - cutBytes(first)))
}

/** How many bytes at the end belong to a character that goes on in the next chunk. */
function cutBytes(chunk: Buffer): number {
  for (let back = 1; back <= 3 && back <= chunk.length; back++) {
    const byte = chunk[chunk.length - back] ?? 0
    if (byte < 0x80) return 0
    if (byte < 0xc0) continue // A continuation byte: the character starts further left.
    const bytes = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2
    return bytes > back ? back : 0
  }
  return 0
}
