import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { describe, it } from 'node:test'
import { GeneralSign } from 'jose'
import { keyId, signEnvelope, verifyEnvelope, type Role } from '#shared/envelope.ts'
import { Fault, type FaultCode } from '#shared/fault.ts'
import { LIMITS } from '#shared/limits.ts'
import type { Envelope, TrustDocument } from '#shared/schemas/command.ts'
import { testKey, type TestKey } from '#test/signer.ts'

const [root, release, commandA, commandB, stranger] = await Promise.all([
  testKey(),
  testKey(),
  testKey(),
  testKey(),
  testKey(),
])

const FAR_MS = 4_000_000_000_000

function trustWith(changes: Partial<TrustDocument['roles']> = {}): TrustDocument {
  const all = [root, release, commandA, commandB]
  return {
    version: 1,
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

const payload = { node: 'edge-1', generation: 7 }
const oneOf = trustWith()
const twoOf = trustWith({ command: { keyIds: [commandA.kid, commandB.kid], threshold: 2 } })

function first(envelope: Envelope): Envelope['signatures'][number] {
  const [signature] = envelope.signatures
  assert.ok(signature)
  return signature
}

/** The envelope with another protected header in its first signature. */
function withHeader(envelope: Envelope, header: unknown): Envelope {
  const head = Buffer.from(JSON.stringify(header)).toString('base64url')
  return {
    ...envelope,
    signatures: [{ ...first(envelope), protected: head }, ...envelope.signatures.slice(1)],
  }
}

/** Really signed, with a header that is not ours. */
async function signedWithHeader(header: Record<string, unknown>): Promise<Envelope> {
  const sign = new GeneralSign(Buffer.from(JSON.stringify(payload)))
  const added = sign.addSignature(commandA.key, { crit: { 'shoal-test': true } })
  added.setProtectedHeader({ alg: 'EdDSA', ...header })
  const jws = await sign.sign()
  return {
    payload: jws.payload,
    signatures: jws.signatures.map((one) => ({
      protected: one.protected ?? '',
      signature: one.signature,
    })),
  }
}

const command = (...signers: TestKey[]) => signEnvelope(payload, signers, 'command')
const good = await command(commandA)
const typ = 'shoal-command+jws'

async function hmacConfusion(): Promise<Envelope> {
  // The classic attack: the public key, which everybody has, used as an HMAC secret.
  const header = { alg: 'HS256', typ, kid: commandA.kid }
  const head = Buffer.from(JSON.stringify(header)).toString('base64url')
  const secret = Buffer.from(commandA.publicKey.x, 'base64url')
  const mac = createHmac('sha256', secret).update(`${head}.${good.payload}`).digest('base64url')
  return { payload: good.payload, signatures: [{ protected: head, signature: mac }] }
}

describe('keyId', () => {
  it('is the RFC 8037 appendix A.3 thumbprint for its key', async () => {
    const x = '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'
    const id = await keyId({ kty: 'OKP', crv: 'Ed25519', x })
    assert.equal(id, 'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k')
  })
})

describe('verifyEnvelope takes', () => {
  const rows: { name: string; envelope: () => Promise<unknown>; trust: TrustDocument }[] = [
    { name: 'one signature where one is needed', envelope: async () => good, trust: oneOf },
    {
      name: 'two keys where two are needed',
      envelope: () => command(commandA, commandB),
      trust: twoOf,
    },
    {
      name: 'one good signature beside one of a stranger',
      envelope: () => command(stranger, commandA),
      trust: oneOf,
    },
    {
      name: 'a good signature after a broken one of another key',
      envelope: async () => {
        const both = await command(commandA, commandB)
        const [a, b] = both.signatures
        return { ...both, signatures: [{ ...a, signature: b?.signature }, b] }
      },
      trust: oneOf,
    },
  ]
  for (const row of rows) {
    it(row.name, async () => {
      assert.deepEqual(await verifyEnvelope(await row.envelope(), row.trust, 'command'), payload)
    })
  }
})

interface RefusedRow {
  readonly name: string
  readonly code: FaultCode
  readonly envelope: () => unknown
  readonly trust?: TrustDocument
  readonly role?: Role
}

const refused: RefusedRow[] = [
  { name: 'nothing', code: 'COMMAND_MALFORMED', envelope: () => undefined },
  { name: 'text', code: 'COMMAND_MALFORMED', envelope: () => 'a.b.c' },
  {
    name: 'no signatures',
    code: 'COMMAND_MALFORMED',
    envelope: () => ({ ...good, signatures: [] }),
  },
  {
    name: 'more signatures than the bound',
    code: 'COMMAND_MALFORMED',
    envelope: () => ({ ...good, signatures: Array.from({ length: 17 }, () => first(good)) }),
  },
  {
    name: 'a payload above the bound',
    code: 'COMMAND_MALFORMED',
    envelope: () => ({ ...good, payload: 'A'.repeat(LIMITS.commandBytesMax * 1.5) }),
  },
  {
    name: 'a payload that is not base64url',
    code: 'COMMAND_MALFORMED',
    envelope: () => ({ ...good, payload: `${good.payload}=` }),
  },
  {
    name: 'a header that is not JSON',
    code: 'COMMAND_MALFORMED',
    envelope: () => ({ ...good, signatures: [{ ...first(good), protected: 'bm90anNvbg' }] }),
  },
  {
    name: 'an array as header',
    code: 'COMMAND_MALFORMED',
    envelope: () => withHeader(good, []),
  },
  {
    name: 'algorithm none',
    code: 'COMMAND_MALFORMED',
    envelope: () => withHeader(good, { alg: 'none', typ, kid: commandA.kid }),
  },
  {
    name: 'HMAC with the public key as secret',
    code: 'COMMAND_MALFORMED',
    envelope: hmacConfusion,
  },
  {
    name: 'no type',
    code: 'COMMAND_MALFORMED',
    envelope: () => signedWithHeader({ kid: commandA.kid }),
  },
  {
    name: 'the type of another role',
    code: 'COMMAND_MALFORMED',
    envelope: () => signEnvelope(payload, [commandA], 'release'),
  },
  {
    name: 'a critical extension',
    code: 'COMMAND_MALFORMED',
    envelope: () =>
      signedWithHeader({ typ, kid: commandA.kid, crit: ['shoal-test'], 'shoal-test': 1 }),
  },
  {
    name: 'a key in the header',
    code: 'COMMAND_MALFORMED',
    envelope: () => signedWithHeader({ typ, kid: commandA.kid, jwk: stranger.publicKey }),
  },
  { name: 'no key id', code: 'COMMAND_MALFORMED', envelope: () => signedWithHeader({ typ }) },
  {
    name: 'a key id that nobody has',
    code: 'COMMAND_KEY_UNKNOWN',
    envelope: () => command(stranger),
  },
  {
    name: 'a key id that is a property of every object',
    code: 'COMMAND_KEY_UNKNOWN',
    envelope: () => signedWithHeader({ typ, kid: 'constructor' }),
    trust: trustWith({ command: { keyIds: ['constructor'], threshold: 1 } }),
  },
  {
    name: 'a key of another role',
    code: 'COMMAND_KEY_UNKNOWN',
    envelope: () => signEnvelope(payload, [release], 'command'),
  },
  {
    name: 'one of two signatures needed',
    code: 'COMMAND_SIGNATURE',
    envelope: () => good,
    trust: twoOf,
  },
  {
    name: 'the same key twice where two are needed',
    code: 'COMMAND_SIGNATURE',
    envelope: () => command(commandA, commandA),
    trust: twoOf,
  },
  {
    name: 'one key under two ids where two are needed',
    code: 'COMMAND_SIGNATURE',
    envelope: () => command(commandA, { ...commandA, kid: 'alias' }),
    trust: {
      ...twoOf,
      keys: { ...twoOf.keys, alias: commandA.publicKey },
      roles: { ...twoOf.roles, command: { keyIds: [commandA.kid, 'alias'], threshold: 2 } },
    },
  },
  {
    name: "a stranger's signature under a known key id",
    code: 'COMMAND_SIGNATURE',
    envelope: () => command({ ...stranger, kid: commandA.kid }),
  },
  {
    name: 'a payload exchanged for another',
    code: 'COMMAND_SIGNATURE',
    envelope: async () => ({
      ...good,
      payload: Buffer.from('{"node":"edge-2"}').toString('base64url'),
    }),
  },
  {
    name: 'an empty signature',
    code: 'COMMAND_SIGNATURE',
    envelope: () => ({ ...good, signatures: [{ ...first(good), signature: '' }] }),
  },
]

describe('verifyEnvelope refuses', () => {
  for (const row of refused) {
    it(`${row.name}: ${row.code}`, async () => {
      const envelope: unknown = await row.envelope()
      await assert.rejects(
        verifyEnvelope(envelope, row.trust ?? oneOf, row.role ?? 'command'),
        (error: unknown) => Fault.is(error, row.code),
      )
    })
  }

  it('every envelope with one bit of payload, header or signature flipped', async () => {
    const signature = first(good)
    const parts = { payload: good.payload, ...signature }
    let tampered = 0
    for (const part of ['payload', 'protected', 'signature'] as const) {
      const bytes = Buffer.from(parts[part], 'base64url')
      for (let at = 0; at < bytes.length; at += 2) {
        const copy = Buffer.from(bytes)
        copy.writeUInt8(copy.readUInt8(at) ^ 0x10, at)
        const changed = { ...parts, [part]: copy.toString('base64url') }
        const envelope = {
          payload: changed.payload,
          signatures: [{ protected: changed.protected, signature: changed.signature }],
        }
        await assert.rejects(
          verifyEnvelope(envelope, oneOf, 'command'),
          Fault,
          `${part} byte ${at}`,
        )
        tampered += 1
      }
    }
    assert.ok(tampered > 40)
  })

  it('an unprotected header has no say', async () => {
    const signatures = [{ ...first(good), header: { alg: 'none', kid: stranger.kid } }]
    assert.deepEqual(await verifyEnvelope({ ...good, signatures }, oneOf, 'command'), payload)
  })
})

describe('signEnvelope', () => {
  it('refuses what no receiver would take', async () => {
    const large = { text: 'x'.repeat(LIMITS.commandBytesMax) }
    await assert.rejects(signEnvelope(large, [commandA], 'command'), (error: unknown) =>
      Fault.is(error, 'COMMAND_MALFORMED'),
    )
  })

  it('the largest payload fits a NATS message with its signatures', async () => {
    const largest = { text: 'x'.repeat(LIMITS.commandBytesMax - 11) }
    const envelope = await signEnvelope(largest, Array<TestKey>(16).fill(commandA), 'command')
    assert.ok(JSON.stringify(envelope).length < 1024 * 1024)
  })
})
