import type { Answer } from './answer.ts'

/**
 * The bytes in memory of their own. A small buffer is a part of one of 64 KiB that many share (`Buffer.poolSize`): whoever keeps it for long keeps all of
 * that.
 */
export function owned(bytes: Buffer): Buffer {
  if (bytes.buffer.byteLength <= 2 * bytes.length) return bytes
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}

export function ownedAnswer({ code, options, payload }: Answer): Answer {
  const own = options.map(({ number, value }) => ({ number, value: owned(value) }))
  return { code, options: own, payload: owned(payload) }
}
