import assert from 'node:assert/strict'
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { ensureKeys } from '#controller/signing/index.ts'
import { verifyEnvelope, verifyTrust } from '#shared/envelope.ts'
import { Fault } from '#shared/fault.ts'
import type { TrustDocument } from '#shared/schemas/command.ts'
import { commandFor } from '#test/signer.ts'
import { tempFolder } from '#test/temp.ts'

const invalid = (error: unknown) => Fault.is(error, 'CONFIG_INVALID')
const at = (nowMs: number) => ({ clock: { nowMs: () => nowMs }, trustLifeMs: 1_000 })

describe('ensureKeys', () => {
  it('makes three keys and a trust document once; what it signs verifies from the pinned root', async () => {
    await using folder = await tempFolder()
    const first = await ensureKeys(folder.path)
    const names = ['command.json', 'release.json', 'root.json', 'trust-1.json']
    assert.deepEqual((await readdir(folder.path)).toSorted(), names)
    for (const name of names) {
      assert.equal((await stat(folder.join(name))).mode & 0o777, 0o600)
    }
    const again = await ensureKeys(folder.path)
    assert.equal(again.rootKeyId, first.rootKeyId)
    assert.deepEqual(again.trustEnvelope(), first.trustEnvelope())
    assert.deepEqual(again.trustChain(0), [first.trustEnvelope()])
    assert.deepEqual(again.trustChain(1), [])

    const trust = await verifyTrust(first.trustEnvelope(), first.rootKeyId, Date.now())
    const ids = Object.values(trust.roles).flatMap(({ keyIds }) => keyIds)
    assert.equal(new Set(ids).size, 3)
    const command = commandFor('edge-1', 1)
    const envelope = await again.signCommand(command)
    assert.deepEqual(await verifyEnvelope(envelope, trust, 'command'), command)
    await assert.rejects(verifyEnvelope(envelope, trust, 'release'), Fault)
  })

  it('makes the next version at a start when half of the life is over; nodes can follow the chain', async () => {
    await using folder = await tempFolder()
    const first = await ensureKeys(folder.path, at(0))
    assert.equal((await ensureKeys(folder.path, at(499))).trust.version, 1)
    const second = await ensureKeys(folder.path, at(501))
    assert.deepEqual([second.trust.version, second.trust.expiresAtMs], [2, 1_501])
    // Long after all of them have ended.
    const third = await ensureKeys(folder.path, at(10_000))
    assert.equal(third.trust.version, 3)
    assert.equal(third.rootKeyId, first.rootKeyId)
    let trusted: TrustDocument = first.trust
    for (const envelope of third.trustChain(1)) trusted = await verifyTrust(envelope, trusted, 0)
    assert.equal(trusted.version, 3)
  })

  const files = ['root.json', 'release.json', 'command.json', 'trust-1.json']
  for (const name of files) {
    it(`never replaces ${name} when it is damaged`, async () => {
      await using folder = await tempFolder()
      await ensureKeys(folder.path)
      const half = (await readFile(folder.join(name))).subarray(0, 30)
      await writeFile(folder.join(name), half)
      await assert.rejects(ensureKeys(folder.path), invalid)
      assert.deepEqual(await readFile(folder.join(name)), half)
    })
  }

  for (const name of files.slice(0, 3)) {
    it(`makes no new key for a ${name} that is gone: every node would refuse it`, async () => {
      await using folder = await tempFolder()
      await ensureKeys(folder.path)
      await rm(folder.join(name))
      await assert.rejects(ensureKeys(folder.path), invalid)
      assert.ok(!(await readdir(folder.path)).includes(name))
    })
  }

  it('refuses keys and trust of different installations', async () => {
    await using one = await tempFolder()
    await using other = await tempFolder()
    await ensureKeys(one.path)
    await ensureKeys(other.path)
    await writeFile(one.join('command.json'), await readFile(other.join('command.json')))
    await assert.rejects(ensureKeys(one.path), invalid)
  })

  it('goes on where a first start was cut off', async () => {
    await using folder = await tempFolder()
    const { rootKeyId } = await ensureKeys(folder.path)
    for (const name of ['trust-1.json', 'command.json']) await rm(folder.join(name))
    await writeFile(folder.join('command.json.new'), '{"half')
    const signing = await ensureKeys(folder.path)
    assert.equal(signing.rootKeyId, rootKeyId)
    assert.equal(signing.trust.version, 1)
  })
})
