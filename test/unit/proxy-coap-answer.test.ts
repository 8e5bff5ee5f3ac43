import assert from 'node:assert/strict'
import { it } from 'node:test'
import { answerOf } from '#agent/proxy/coap/answer.ts'

const LISTS = [
  ['content-type', 'application/json', 'etag', '"0a0b"', 'cache-control', 'max-age=7'],
  ['content-type', 'text/plain'],
  ['cache-control', 'no-store'],
  [],
]
const BODIES = [Buffer.from('text'), Buffer.alloc(0), Buffer.from([0xff, 0xfe])]

/** Everything that may be asked of a function whose answers have these header fields. */
const askedOf = (headers: readonly string[]) =>
  [200, 204, 304, 404].flatMap((status) =>
    ['GET', 'DELETE'].flatMap((method) =>
      [undefined, 50, 0].flatMap((accept) =>
        BODIES.map((body) => ({ result: { status, headers, body }, method, accept })),
      ),
    ),
  )

it('an answer whose header fields are the list of the one before is what it would be alone', () => {
  for (const headers of LISTS) {
    const asked = askedOf(headers)
    const alone = asked.map(({ result, method, accept }) =>
      answerOf(
        { status: result.status, headers: [...headers], body: result.body },
        method,
        accept,
        1_000,
      ),
    )
    for (const before of asked) {
      for (const [at, { result, method, accept }] of asked.entries()) {
        void answerOf(before.result, before.method, before.accept, 1_000)
        assert.deepEqual(answerOf(result, method, accept, 1_000), alone[at])
      }
    }
  }
})
