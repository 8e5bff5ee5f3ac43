import assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import { describe, it } from 'node:test'
import {
  ensureIdentity,
  forgetEnrolment,
  parseToken,
  type IdentityOptions,
} from '#agent/command/index.ts'
import { systemClock } from '#shared/clock.ts'
import { Fault, type FaultCode } from '#shared/fault.ts'
import { TestSigner } from '#test/signer.ts'
import { tempFolder } from '#test/temp.ts'
import { TinyController } from '#test/tiny-controller.ts'

const log = { debug() {}, info() {}, warn() {}, error() {} }
const is = (code: FaultCode) => (error: unknown) => Fault.is(error, code)

function enrol(folder: string, changes: Partial<IdentityOptions>, signal?: AbortSignal) {
  return ensureIdentity(
    {
      folder,
      joinToken: undefined,
      name: 'edge-1',
      arch: 'amd64',
      labels: { site: 'north' },
      fs,
      clock: systemClock,
      log,
      ...changes,
    },
    signal ?? AbortSignal.timeout(60_000),
  )
}

describe('enrolment', () => {
  it('makes the key on the node, pins the root, and is kept for good, readable by nobody else', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const identity = await enrol(folder.path, { joinToken: controller.token() })
    assert.equal(identity.node, 'edge-1')
    assert.equal(identity.rootKeyId, controller.signing.rootKeyId)
    const [join] = controller.joins
    assert.ok(join)
    assert.match(join.nodeKey, /^U/)
    assert.deepEqual([join.arch, join.labels], ['amd64', { site: 'north' }])
    assert.ok(!JSON.stringify(controller.joins).includes(identity.seed))
    assert.equal((await fs.stat(folder.join('identity.json'))).mode & 0o777, 0o600)

    assert.deepEqual(await enrol(folder.path, { joinToken: 'not looked at' }), identity)
    assert.equal(controller.joins.length, 1)
  })

  it('joins anew with the same key after it was removed, and needs a token for that', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const before = await enrol(folder.path, { joinToken: controller.token() })
    await forgetEnrolment({ folder: folder.path, fs })
    await assert.rejects(enrol(folder.path, {}), /removed from the fleet.*shoal node token/)
    const again = await enrol(folder.path, { joinToken: controller.token() })
    assert.equal(again.seed, before.seed)
    assert.equal(controller.joins.length, 2)
    assert.deepEqual(await enrol(folder.path, {}), again)
  })

  it('goes on asking while the controller fails, always with the same key', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const join = controller.answerJoin
    const bad = [
      { status: 503, body: { code: 'INTERNAL', message: 'starting' } },
      { status: 200, body: { node: 'edge-1' } },
      { status: 429, body: {} },
    ]
    controller.answerJoin = async (request) => bad.shift() ?? (await join(request))
    await enrol(folder.path, { joinToken: controller.token() })
    assert.equal(controller.joins.length, 4)
    assert.equal(new Set(controller.joins.map(({ nodeKey }) => nodeKey)).size, 1)
  })

  it('after an answer that was lost is repeated by the next start with the same key', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    const join = controller.answerJoin
    const stop = new AbortController()
    controller.answerJoin = async (request) => {
      await join(request)
      stop.abort(new Error('power cut'))
      return { status: 500, body: {} }
    }
    await assert.rejects(enrol(folder.path, { joinToken: controller.token() }, stop.signal))
    controller.answerJoin = join
    await enrol(folder.path, { joinToken: controller.token() })
    assert.equal(new Set(controller.joins.map(({ nodeKey }) => nodeKey)).size, 1)
  })

  it('ends with JOIN_REFUSED and the reason when the controller says no', async () => {
    await using controller = await TinyController.start()
    await using folder = await tempFolder()
    controller.answerJoin = async () => ({
      status: 403,
      body: { code: 'JOIN_REFUSED', message: 'this token was used' },
    })
    await assert.rejects(
      enrol(folder.path, { joinToken: controller.token() }),
      (error: unknown) => Fault.is(error, 'JOIN_REFUSED') && /was used/.test(error.message),
    )
    assert.equal(controller.joins.length, 1)
  })

  it('takes no trust document but that of the pinned root', async () => {
    await using controller = await TinyController.start()
    const impostor = await TestSigner.create()
    const join = controller.answerJoin
    const forged = await impostor.signTrust()
    const named = await impostor.signTrust({
      ...controller.signing.trust,
      keys: { ...controller.signing.trust.keys, ...impostor.trust.keys },
    })
    for (const trust of [forged, named]) {
      await using folder = await tempFolder()
      controller.answerJoin = async (request) => {
        const { status, body } = await join(request)
        return { status, body: Object.assign({}, body, { trust }) }
      }
      await assert.rejects(
        enrol(folder.path, { joinToken: controller.token() }),
        is('TRUST_INVALID'),
      )
      const file = await fs.readFile(folder.join('identity.json'), 'utf8')
      assert.doesNotMatch(file, /natsUrls/)
    }
  })

  it('without a token says how to get one', async () => {
    await using folder = await tempFolder()
    await assert.rejects(
      enrol(folder.path, {}),
      (error: unknown) => Fault.is(error, 'CONFIG_INVALID') && /node token/.test(error.message),
    )
  })

  it('of a damaged identity is told from no identity', async () => {
    await using folder = await tempFolder()
    await fs.writeFile(folder.join('identity.json'), '{"seed":"SU')
    await assert.rejects(
      enrol(folder.path, {}),
      (error: unknown) => Fault.is(error, 'CONFIG_INVALID') && /identity\.json/.test(error.message),
    )
  })
})

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

describe('a join token', () => {
  const good = { url: 'https://shoal.example:7420', secret: 's'.repeat(20), root: 'r' }

  it('is read, also with a line end behind it', () => {
    assert.deepEqual(parseToken(`${encode(good)}\n`), good)
  })

  for (const text of [
    '',
    'abc',
    encode({}),
    encode({ ...good, url: 'file:///etc/passwd' }),
    encode({ ...good, url: 'x' }),
  ]) {
    it(`is refused when it is ${JSON.stringify(text.slice(0, 12))}..., and not repeated in the message`, () => {
      assert.throws(
        () => parseToken(text),
        (error: unknown) =>
          Fault.is(error, 'CONFIG_INVALID') && (text === '' || !error.message.includes(text)),
      )
    })
  }
})
