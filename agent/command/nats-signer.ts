import { createPrivateKey, sign, type KeyObject } from 'node:crypto'
import type { Authenticator } from '@nats-io/transport-node'

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
/** Two of prefix, 32 of seed, two of checksum. */
const SEED_BYTES = 36
/** PKCS #8 of an Ed25519 key, up to its 32 bytes (RFC 8410, section 7). */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')

/**
 * Proves to the broker, by the nonce that it sends, that this node has the key that `jwt` names. Does what `jwtAuthenticator` of nats.js
 * does, with Node's own Ed25519: the one in JavaScript holds up all calls at each connection.
 *
 * @param seed - as nkeys writes it: `SU` and 56 characters; checked when it was read
 */
export function signBy(jwt: string, seed: string): Authenticator {
  const key = keyOf(seed)
  return (nonce) => ({
    jwt,
    sig: sign(undefined, Buffer.from(nonce ?? ''), key).toString('base64url'),
  })
}

function keyOf(seed: string): KeyObject {
  const raw = base32Bytes(seed).subarray(2, SEED_BYTES - 2)
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, raw]), format: 'der', type: 'pkcs8' })
}

/** RFC 4648, section 6, without padding. */
function base32Bytes(text: string): Buffer {
  const bytes: number[] = []
  let bits = 0
  let value = 0
  for (const letter of text) {
    value = (value << 5) | BASE32.indexOf(letter)
    bits += 5
    if (bits < 8) continue
    bits -= 8
    bytes.push((value >> bits) & 0xff)
    value &= (1 << bits) - 1
  }
  return Buffer.from(bytes)
}
