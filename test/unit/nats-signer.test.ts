import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { jwtAuthenticator } from '@nats-io/transport-node'
import { createUser } from '@nats-io/nkeys'
import { signBy } from '#agent/command/nats-signer.ts'

describe('the signature that a broker asks for', () => {
  it('is that of nats.js, for any key', () => {
    for (let n = 0; n < 20; n++) {
      const seed = createUser().getSeed()
      const nonce = `nonce ${n}`
      const ours = signBy('a.b.c', Buffer.from(seed).toString())(nonce)
      const theirs = jwtAuthenticator('a.b.c', seed)(nonce)
      assert.ok(ours !== undefined && 'sig' in ours && 'jwt' in ours)
      assert.ok(theirs !== undefined && 'sig' in theirs && 'jwt' in theirs)
      assert.equal(ours.jwt, theirs.jwt)
      assert.deepEqual(Buffer.from(ours.sig, 'base64'), Buffer.from(theirs.sig, 'base64'))
    }
  })
})
