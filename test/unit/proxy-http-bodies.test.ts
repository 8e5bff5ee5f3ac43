import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { GatheredBody, StreamedBody } from '#agent/proxy/http/request-body.ts'
import { Fault } from '#shared/fault.ts'
import { patterned } from '#test/invoker.ts'

const BYTES_MAX = 1_000_000

/** Hands `sizes` bytes of a pattern to the body, one piece after another, with `between` after each. */
async function send(
  body: StreamedBody | GatheredBody,
  sizes: readonly number[],
  between: () => Promise<void>,
): Promise<Buffer> {
  const all = patterned(sizes.reduce((sum, bytes) => sum + bytes, 0))
  // As the one buffer that all reads go to: nothing may be kept of it.
  const scratch = Buffer.alloc(100_000)
  let at = 0
  for (const bytes of sizes) {
    all.copy(scratch, 7, at, at + bytes)
    body.bytes(scratch, 7, 7 + bytes)
    scratch.fill('?')
    at += bytes
    await between()
  }
  body.end()
  return all
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const pieceSizes = fc.array(
  fc.oneof(
    { arbitrary: fc.integer({ min: 1, max: 20 }), weight: 8 },
    fc.integer({ min: 1, max: 5_000 }),
    fc.integer({ min: 1, max: 60_000 }),
  ),
  { minLength: 1, maxLength: 200 },
)

/** Ways to read a stream; each resolves with all that it gave. */
const READERS = {
  'as it comes': async (body: StreamedBody) => {
    const chunks: Buffer[] = []
    for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk)
    return chunks
  },
  'paused after each piece': (body: StreamedBody) =>
    new Promise<Buffer[]>((resolve, reject) => {
      const chunks: Buffer[] = []
      body.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        body.pause()
        setTimeout(() => body.resume(), chunks.length % 3)
      })
      body.on('end', () => resolve(chunks))
      body.on('error', reject)
    }),
  'by a hundred bytes': (body: StreamedBody) =>
    new Promise<Buffer[]>((resolve, reject) => {
      const chunks: Buffer[] = []
      body.on('readable', () => {
        for (let chunk = body.read(100); chunk !== null; chunk = body.read(100)) chunks.push(chunk)
      })
      body.on('end', () => resolve(chunks))
      body.on('error', reject)
    }),
}

for (const [name, read] of Object.entries(READERS)) {
  it(`a streamed body that is read ${name} is the same, whatever the pieces`, async () => {
    await fc.assert(
      fc.asyncProperty(pieceSizes, fc.nat({ max: 5 }), async (sizes, everyPieces) => {
        const body = new StreamedBody({ setFlowing: () => undefined }, 20_000_000)
        const got = read(body)
        let count = 0
        const sent = await send(body, sizes, async () => {
          if (++count % (everyPieces + 1) === 0) await turn()
        })
        assert.ok(Buffer.concat(await got).equals(sent))
      }),
      { numRuns: 40 },
    )
  })
}

it('a reader that asks for more than has come gets it as soon as it has', async () => {
  const body = new StreamedBody({ setFlowing: () => undefined }, BYTES_MAX)
  const got = new Promise((resolve) => {
    body.on('readable', () => {
      const chunk = body.read(3)
      if (chunk !== null) resolve(chunk.toString())
    })
  })
  for (const char of 'abc') {
    body.bytes(Buffer.from(char), 0, 1)
    await turn()
    await turn()
  }
  assert.equal(await got, 'abc')
})

it('pieces of one byte for a reader that is behind become few, and stop the source in time', async () => {
  const source = { flowing: true, setFlowing: (on: boolean) => (source.flowing = on) }
  const body = new StreamedBody(source, BYTES_MAX)
  body.pause()
  let sent = 0
  while (source.flowing && sent < BYTES_MAX) {
    body.bytes(Buffer.from('x'), 0, 1)
    sent += 1
    if (sent % 1_000 === 0) await turn()
  }
  assert.ok(sent >= 64 * 1024 && sent <= 96 * 1024, `${sent} bytes`)
  const chunks: Buffer[] = []
  body.on('data', (chunk: Buffer) => chunks.push(chunk))
  body.end()
  const ended = new Promise((resolve) => body.on('end', resolve))
  body.resume()
  await ended
  assert.equal(Buffer.concat(chunks).length, sent)
  assert.ok(chunks.length < 10, `${chunks.length} pieces`)
})

it('a streamed body above the limit fails, however small its pieces are', async () => {
  const body = new StreamedBody({ setFlowing: () => undefined }, 10)
  for (let sent = 0; sent < 11; sent += 1) body.bytes(Buffer.from('x'), 0, 1)
  assert.ok(Fault.is(body.errored, 'BODY_TOO_LARGE'))
  body.on('error', () => undefined)
  body.bytes(Buffer.from('x'), 0, 1)
  body.end()
})

it('a gathered body is the same, whatever the pieces, and owns no more memory than it has bytes', async () => {
  await fc.assert(
    fc.asyncProperty(pieceSizes, async (sizes) => {
      let got: Buffer | Fault | undefined
      const body = new GatheredBody(20_000_000, (done) => (got = done))
      const sent = await send(body, sizes, async () => undefined)
      assert.ok(Buffer.isBuffer(got) && got.equals(sent))
      assert.ok(got.length < 32 * 1024 || got.buffer.byteLength === got.length)
    }),
    { numRuns: 40 },
  )
  const told: (Buffer | Fault)[] = []
  const large = new GatheredBody(1_000, (done) => told.push(done))
  for (let sent = 0; sent < 1_200; sent += 100) large.bytes(Buffer.alloc(100), 0, 100)
  large.end()
  assert.equal(told.length, 1)
  assert.ok(Fault.is(told[0], 'BODY_TOO_LARGE'))
})
