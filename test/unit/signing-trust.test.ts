import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { signEnvelope, verifyTrust } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import type { Envelope, TrustDocument } from '#shared/schemas/command.ts'
import { testKey, type TestKey } from '#test/signer.ts'

const [root, nextRoot, release, commandA, commandB, stranger] = await Promise.all([
  testKey(),
  testKey(),
  testKey(),
  testKey(),
  testKey(),
  testKey(),
])

const FAR_MS = 4_000_000_000_000

function trustWith(changes: Partial<TrustDocument['roles']> = {}, version = 1): TrustDocument {
  const all = [root, nextRoot, release, commandA, commandB]
  return {
    version,
    expiresAtMs: FAR_MS,
    keys: Object.fromEntries(all.map(({ kid, publicKey }) => [kid, publicKey])),
    roles: {
      root: { keyIds: [root.kid], threshold: 1 },
      release: { keyIds: [release.kid], threshold: 1 },
      command: { keyIds: [commandA.kid, commandB.kid], threshold: 1 },
      ...changes,
    },
  }
}

const oneOf = trustWith()

const sign = (document: unknown, ...signers: TestKey[]) => signEnvelope(document, signers, 'root')
const rootIs = (...keys: TestKey[]) => ({
  root: { keyIds: keys.map(({ kid }) => kid), threshold: keys.length },
})

describe('verifyTrust', () => {
  const second = trustWith(rootIs(nextRoot), 2)

  const taken: {
    name: string
    envelope: () => Promise<Envelope>
    anchor: string | TrustDocument
  }[] = [
    {
      name: 'the first document, its root pinned',
      envelope: () => sign(oneOf, root),
      anchor: root.kid,
    },
    {
      name: 'a new version signed by the same root',
      envelope: () => sign(trustWith({}, 2), root),
      anchor: oneOf,
    },
    {
      name: 'another root, signed by the old and the new one',
      envelope: () => sign(second, root, nextRoot),
      anchor: oneOf,
    },
    {
      name: 'several versions further',
      envelope: () => sign(trustWith({}, 9), root),
      anchor: oneOf,
    },
  ]
  for (const row of taken) {
    it(`takes ${row.name}`, async () => {
      const document = await verifyTrust(await row.envelope(), row.anchor, 0)
      assert.ok(document.version >= 1)
    })
  }

  const bad: { name: string; envelope: () => Promise<unknown>; anchor: string | TrustDocument }[] =
    [
      {
        name: 'another root than the pinned',
        envelope: () => sign(oneOf, root),
        anchor: nextRoot.kid,
      },
      {
        name: 'a pinned root that is named but has not signed',
        envelope: () =>
          sign({ ...oneOf, roles: { ...oneOf.roles, ...rootIs(nextRoot, root) } }, nextRoot),
        anchor: root.kid,
      },
      {
        name: 'a pinned root that is named but only others reach the threshold',
        envelope: () =>
          sign(trustWith({ root: { keyIds: [root.kid, nextRoot.kid], threshold: 1 } }), nextRoot),
        anchor: root.kid,
      },
      {
        name: 'a new root signed by the new one only',
        envelope: () => sign(second, nextRoot),
        anchor: oneOf,
      },
      {
        name: 'a new root signed by the old one only',
        envelope: () => sign(second, root),
        anchor: oneOf,
      },
      { name: 'the same version', envelope: () => sign(oneOf, root), anchor: oneOf },
      { name: 'an older version', envelope: () => sign(oneOf, root), anchor: trustWith({}, 2) },
      {
        name: 'a document past its end',
        envelope: () => sign({ ...oneOf, expiresAtMs: 1 }, root),
        anchor: root.kid,
      },
      {
        name: 'a key under the id of another',
        envelope: () =>
          sign({ ...oneOf, keys: { ...oneOf.keys, [commandB.kid]: stranger.publicKey } }, root),
        anchor: root.kid,
      },
      {
        name: 'a role with a key that is not in the document',
        envelope: () =>
          sign(trustWith({ release: { keyIds: [stranger.kid], threshold: 1 } }), root),
        anchor: root.kid,
      },
      {
        name: 'a threshold that the same key twice would reach',
        envelope: () =>
          sign(
            trustWith({ command: { keyIds: [commandA.kid, commandA.kid], threshold: 2 } }),
            root,
          ),
        anchor: root.kid,
      },
      {
        name: 'a command in its place',
        envelope: () => signEnvelope({ node: 'edge-1' }, [commandA], 'command'),
        anchor: root.kid,
      },
      { name: 'no envelope', envelope: async () => null, anchor: root.kid },
    ]
  for (const row of bad) {
    it(`refuses ${row.name}: TRUST_INVALID`, async () => {
      const envelope = await row.envelope()
      await assert.rejects(verifyTrust(envelope, row.anchor, 1_000), (error: unknown) =>
        Fault.is(error, 'TRUST_INVALID'),
      )
    })
  }
})
