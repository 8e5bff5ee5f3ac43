import assert from 'node:assert/strict'
import { it } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { zstdDecompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { zstd } from '../../controller/build/zstd.ts'

// The bytes in pieces; before each piece as many turns of the event loop pass as its `waits` says.
async function* pieces(
  content: Buffer,
  cuts: readonly { bytes: number; waits: number }[],
): AsyncGenerator<Buffer, void> {
  let at = 0
  for (const { bytes, waits } of cuts) {
    for (let turn = 0; turn < waits; turn += 1) await nextTurn()
    if (at < content.length) yield content.subarray(at, at + bytes)
    at += bytes
  }
  if (at < content.length) yield content.subarray(at)
  if (cuts.length % 2 === 1) await nextTurn()
}

async function compressed(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of zstd(source)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

it('the same bytes compress to the same bytes, however they were cut and whenever they came', async () => {
  const cuts = fc.array(
    fc.record({
      bytes: fc.integer({ min: 1, max: 100_000 }),
      waits: fc.integer({ min: 0, max: 3 }),
    }),
    { maxLength: 8 },
  )
  // Like source text: neither noise nor one thing over and over, for which all ways come to the same.
  const word = fc.oneof(
    fc.string({ maxLength: 12 }),
    fc.constantFrom('const ', 'return ', '\n  ', '(', ')'),
  )
  const contents = fc
    .tuple(fc.array(word, { maxLength: 2000, size: 'max' }), fc.integer({ min: 1, max: 30 }))
    .map(([words, times]) => Buffer.from(words.join('').repeat(times)))
  await fc.assert(
    fc.asyncProperty(contents, cuts, async (content, cut) => {
      const one = await compressed(pieces(content, []))
      const other = await compressed(pieces(content, cut))
      assert.ok(one.equals(other), `${one.length} and ${other.length} bytes`)
      assert.ok(zstdDecompressSync(one).equals(content))
    }),
    { numRuns: 40, endOnFailure: true },
  )
})

async function* broken(): AsyncGenerator<Buffer, void> {
  yield Buffer.alloc(200_000)
  await nextTurn()
  throw new Error('disk gone')
}

it('a source that fails, fails the compression', async () => {
  await assert.rejects(compressed(broken()), /disk gone/)
})

it('who stops reading leaves nothing running', async () => {
  const ended = Promise.withResolvers<void>()
  async function* endless(): AsyncGenerator<Buffer, void> {
    try {
      for (;;) yield Buffer.from(Array.from({ length: 50_000 }, () => Math.random() * 256))
    } finally {
      ended.resolve()
    }
  }
  for await (const chunk of zstd(endless())) {
    assert.ok(chunk.length > 0)
    break
  }
  await ended.promise
})
