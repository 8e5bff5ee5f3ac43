import assert from 'node:assert/strict'

/** All bytes of a stream; a stream of other things fails. */
export async function collectBytes(stream: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) {
    assert.ok(chunk instanceof Uint8Array)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
