import { randomFillSync } from 'node:crypto'

const USABLE = /^[\x21-\x7e]{1,128}$/
const ID_BYTES = 16

/** Filled anew for every 256 ids. A `randomUUID` is joined of 20 strings, which each call would leave to the garbage collector. */
const random = Buffer.allocUnsafeSlow(256 * ID_BYTES)
let at = random.length

/** The caller's own request id when it is printable and short, else a new one: 32 hexadecimal digits. */
export function requestIdOf(given: string | undefined): string {
  // Copied: a part of a string keeps the whole, here the request's header, and ids live on.
  if (given !== undefined && USABLE.test(given)) {
    return Buffer.from(given, 'latin1').toString('latin1')
  }
  if (at === random.length) {
    randomFillSync(random)
    at = 0
  }
  at += ID_BYTES
  return random.toString('hex', at - ID_BYTES, at)
}
