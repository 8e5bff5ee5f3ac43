import assert from 'node:assert/strict'
import { it } from 'node:test'
import * as fc from 'fast-check'
import { FrameWriter, headBytes, prepareHead, requestHead } from '#agent/invoke/frames/index.ts'
import type { FrameOutput } from '#agent/invoke/frames/index.ts'
import { Fault } from '#shared/fault.ts'

const line = fc.string({ maxLength: 20, unit: 'binary' }).map((text) => text.replaceAll('\n', ''))

const lines = fc.record({
  method: fc.constantFrom('GET', 'POST'),
  path: line,
  query: line,
  headers: fc.array(fc.tuple(line, line), { maxLength: 4 }).map((fields) => fields.flat()),
  protocol: fc.constantFrom('coap' as const, 'http' as const, 'async' as const),
})

class Written implements FrameOutput {
  readonly backlogBytes = 0
  readonly chunks: Buffer[] = []
  write(chunk: Buffer): void {
    this.chunks.push(Buffer.from(chunk))
  }
  cork(): void {}
  uncork(): void {}
  get bytes(): Buffer {
    return Buffer.concat(this.chunks)
  }
}

it('a request with a prepared head is the same to the byte', () => {
  const body = Buffer.from('the body')
  const request = '0123456789abcdef0123456789abcdef'
  fc.assert(
    fc.property(lines, (asked) => {
      const plain = new Written()
      const head = requestHead({ ...asked, requestId: request })
      const writer = new FrameWriter(plain)
      writer.request(5, 1, 1_000, head, headBytes(head), body, body.length)
      writer.flush()
      const quick = new Written()
      const prepared = new FrameWriter(quick)
      prepared.preparedRequest(5, 1_000, prepareHead(asked), request, body)
      prepared.flush()
      assert.ok(plain.bytes.length > 0)
      assert.deepEqual(quick.bytes, plain.bytes)
    }),
  )
})

it('a head that cannot be is refused when it is prepared', () => {
  const asked = { method: 'GET', path: '/', query: '', headers: [], protocol: 'coap' } as const
  for (const query of ['two\nlines', 'x'.repeat(70_000)]) {
    assert.throws(() => prepareHead({ ...asked, query }), Fault)
  }
})
