import assert from 'node:assert/strict'
import { it } from 'node:test'
import { requestIdOf } from '#agent/proxy/request-id.ts'

it('a request without an id gets one of 128 random bits, each another', () => {
  const ids = Array.from({ length: 1_000 }, () => requestIdOf(undefined))
  assert.ok(ids.every((id) => /^[0-9a-f]{32}$/.test(id)))
  assert.equal(new Set(ids).size, ids.length)
})

it("the caller's id is kept when it is short and printable", () => {
  assert.equal(requestIdOf('job-7/3'), 'job-7/3')
  for (const given of ['', 'two words', 'line\nend', 'x'.repeat(129)]) {
    assert.match(requestIdOf(given), /^[0-9a-f]{32}$/)
  }
})
