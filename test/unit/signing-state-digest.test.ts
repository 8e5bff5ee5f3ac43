import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Value } from 'typebox/value'
import { FunctionSettings } from '#shared/schemas/command.ts'
import { canonicalJson, stateDigest } from '#shared/state-digest.ts'

const settings = Value.Create(FunctionSettings)
const sieve = { fn: 'sieve', release: 'r1-00000000', settings }
const echo = { fn: 'echo', release: 'r2-00000000', settings }

it('canonical JSON does not depend on the order of keys, at any depth', () => {
  assert.equal(
    canonicalJson({ b: [{ d: 1, c: 2 }], a: null }),
    canonicalJson({ a: null, b: [{ c: 2, d: 1 }] }),
  )
  assert.equal(canonicalJson({ b: 1, a: [2, 1] }), '{"a":[2,1],"b":1}')
})

it('the digest does not depend on the order of functions or settings', () => {
  const { replicas, ...others } = settings
  const turned = { ...others, replicas }
  assert.notDeepEqual(Object.keys(turned), Object.keys(settings))
  assert.equal(stateDigest([sieve, echo]), stateDigest([echo, { ...sieve, settings: turned }]))
})

it('the digest changes with a function, a release and a setting', () => {
  const digests = [
    stateDigest([]),
    stateDigest([sieve]),
    stateDigest([sieve, echo]),
    stateDigest([{ ...sieve, release: 'r2-00000000' }]),
    stateDigest([{ ...sieve, settings: { ...settings, env: { A: '1' } } }]),
  ]
  assert.equal(new Set(digests).size, digests.length)
  for (const digest of digests) assert.match(digest, /^sha256:[0-9a-f]{64}$/)
})
