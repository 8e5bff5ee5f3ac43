import assert from 'node:assert/strict'

/** What a stream gave, as bytes; streams of other things fail. */
export function bytesOf(chunk: unknown): Uint8Array {
  assert.ok(chunk instanceof Uint8Array)
  return chunk
}
