import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CommandKeeper, TrustKeeper } from '#agent/command/index.ts'
import type { FaultCode } from '#shared/fault.ts'
import { assignmentOf, commandFor, testKey, TestSigner } from '#test/signer.ts'
import { SimulatedDisk } from '#test/simulated-disk.ts'

const NODE = 'edge-1'
const signer = await TestSigner.create()
const stranger = await testKey()
const quiet = { debug() {}, info() {}, warn() {}, error() {} }

interface OpenOptions {
  readonly nowMs?: number
  readonly trust?: { readonly document: typeof signer.trust; readonly expired: boolean }
}

function open(disk: SimulatedDisk, options: OpenOptions = {}): Promise<CommandKeeper> {
  const { nowMs = 1_000_000, trust: given = { document: signer.trust, expired: false } } = options
  const trust = { ...given, documentAt: () => given.document }
  const clock = { nowMs: () => nowMs }
  return CommandKeeper.open({ folder: '/d', node: NODE, trust, fs: disk, clock, log: quiet })
}

const sign = (generation: number, changes = {}) =>
  signer.signCommand(commandFor(NODE, generation, changes))

describe('a keeper', () => {
  it('keeps what it accepts and has it again after a restart', async () => {
    const disk = new SimulatedDisk()
    const keeper = await open(disk)
    assert.equal(keeper.generation, 0)

    const functions = [assignmentOf('sieve'), assignmentOf('site/thermo')]
    const reply = await keeper.receive(await sign(3, { functions }))
    assert.deepEqual(reply, { accepted: true, generation: 3 })
    assert.deepEqual(keeper.command?.functions, functions)

    const again = await open(disk)
    assert.equal(again.generation, 3)
    assert.deepEqual(again.command?.functions, functions)
  })

  it('serves an expired command that it has kept: offline is normal', async () => {
    const disk = new SimulatedDisk()
    const keeper = await open(disk, { nowMs: 10 })
    await keeper.receive(await sign(1, { expiresAtMs: 1_000 }))
    const trust = { document: signer.trust, expired: true }
    const later = await open(disk, { nowMs: 1_000_000, trust })
    assert.equal(later.generation, 1)
  })

  it('serves a kept command whose key has been replaced since, and takes no new one by that key', async () => {
    const disk = new SimulatedDisk()
    const clock = { nowMs: () => 1_000_000 }
    const common = { folder: '/d', fs: disk, clock, log: quiet }
    const enrolled = await signer.signTrust()
    const openBoth = async () => {
      const trust = await TrustKeeper.open({ ...common, rootKeyId: signer.root.kid, enrolled })
      return { trust, keeper: await CommandKeeper.open({ ...common, node: NODE, trust }) }
    }
    const { trust, keeper } = await openBoth()
    assert.deepEqual(await keeper.receive(await sign(1)), { accepted: true, generation: 1 })
    const rotated = {
      ...signer.trust,
      version: 2,
      keys: { ...signer.trust.keys, [stranger.kid]: stranger.publicKey },
      roles: { ...signer.trust.roles, command: { keyIds: [stranger.kid], threshold: 1 } },
    }
    await trust.adopt([await signer.signTrust(rotated)])
    const refused = await keeper.receive(await sign(2))
    assert.equal(refused.accepted ? '' : refused.code, 'COMMAND_KEY_UNKNOWN')

    const again = await openBoth()
    assert.equal(again.trust.document.version, 2)
    assert.equal(again.keeper.generation, 1)
    const next = await signer.signCommand(commandFor(NODE, 2), stranger)
    assert.deepEqual(await again.keeper.receive(next), { accepted: true, generation: 2 })
    assert.equal((await openBoth()).keeper.generation, 2)
  })

  const rows: {
    name: string
    code: FaultCode
    envelope: () => unknown
    options?: OpenOptions
  }[] = [
    { name: 'nothing', code: 'COMMAND_MALFORMED', envelope: () => undefined },
    { name: 'no envelope', code: 'COMMAND_MALFORMED', envelope: () => ({ payload: 1 }) },
    {
      name: 'a signed payload that is no command',
      code: 'COMMAND_MALFORMED',
      envelope: () => signer.signCommand({ node: NODE, generation: 9 }),
    },
    {
      name: 'a field that nobody knows',
      code: 'COMMAND_MALFORMED',
      envelope: () => signer.signCommand({ ...commandFor(NODE, 9), extra: 1 }),
    },
    {
      name: 'a function that comes twice',
      code: 'COMMAND_MALFORMED',
      envelope: () => sign(9, { functions: [assignmentOf('a'), assignmentOf('a')] }),
    },
    {
      name: 'an environment above the bound',
      code: 'COMMAND_MALFORMED',
      envelope: () =>
        sign(9, {
          functions: [assignmentOf('a', { settings: { env: { A: 'x'.repeat(40_000) } } })],
        }),
    },
    {
      name: 'a key that the trust document does not have',
      code: 'COMMAND_KEY_UNKNOWN',
      envelope: () => signer.signCommand(commandFor(NODE, 9), stranger),
    },
    {
      name: 'the key of another role',
      code: 'COMMAND_KEY_UNKNOWN',
      envelope: () => signer.signCommand(commandFor(NODE, 9), signer.release),
    },
    {
      name: 'a forged signature',
      code: 'COMMAND_SIGNATURE',
      envelope: () =>
        signer.signCommand(commandFor(NODE, 9), { ...stranger, kid: signer.command.kid }),
    },
    {
      name: 'a payload changed on the way',
      code: 'COMMAND_SIGNATURE',
      envelope: async () => ({ ...(await sign(9)), payload: (await sign(10)).payload }),
    },
    {
      name: "another node's command",
      code: 'COMMAND_AUDIENCE',
      envelope: () => signer.signCommand(commandFor('edge-2', 9)),
    },
    { name: 'an older generation', code: 'COMMAND_REPLAYED', envelope: () => sign(4) },
    {
      name: 'another command of the same generation',
      code: 'COMMAND_REPLAYED',
      envelope: () => sign(5, { functions: [assignmentOf('other')] }),
    },
    {
      name: 'one past its time',
      code: 'COMMAND_EXPIRED',
      envelope: () => sign(9, { expiresAtMs: 1_000_000 }),
    },
    {
      name: 'any under a trust document past its time',
      code: 'TRUST_INVALID',
      envelope: () => sign(9),
      options: { trust: { document: signer.trust, expired: true } },
    },
  ]
  for (const { name, code, envelope, options } of rows) {
    it(`refuses ${name}: ${code}, and runs on with what it has`, async () => {
      const disk = new SimulatedDisk()
      await (await open(disk)).receive(await sign(5))
      const before = disk.operations
      const keeper = await open(disk, options)
      const reply = await keeper.receive(await envelope())
      assert.equal(reply.accepted, false)
      assert.equal(reply.accepted ? '' : reply.code, code)
      assert.equal(reply.generation, 5)
      assert.equal(keeper.refusal?.code, code)
      assert.equal(keeper.refusal?.atMs, 1_000_000)
      assert.equal(keeper.generation, 5)
      assert.equal(disk.operations, before)
    })
  }

  it('says which generation it refused, as far as that can be read', async () => {
    const keeper = await open(new SimulatedDisk())
    await keeper.receive(await sign(5))
    await keeper.receive(await sign(4))
    assert.equal(keeper.refusal?.generation, 4)
    await keeper.receive('junk')
    assert.equal(keeper.refusal?.generation, undefined)
  })

  it('the kept command once more is answered COMMAND_REPLAYED, and is nothing to report', async () => {
    const keeper = await open(new SimulatedDisk())
    await keeper.receive(await sign(5))
    const reply = await keeper.receive(await sign(5))
    assert.equal(reply.accepted ? '' : reply.code, 'COMMAND_REPLAYED')
    assert.equal(reply.generation, 5)
    assert.equal(keeper.refusal, undefined)
  })

  it('the next command that it accepts ends the refusal', async () => {
    const keeper = await open(new SimulatedDisk())
    await keeper.receive('junk')
    assert.equal(keeper.refusal?.code, 'COMMAND_MALFORMED')
    await keeper.receive(await sign(1))
    assert.equal(keeper.refusal, undefined)
  })

  it('takes commands in the order in which they came', async () => {
    const keeper = await open(new SimulatedDisk())
    const [one, two, three] = [await sign(1), await sign(2), await sign(3)]
    const replies = await Promise.all([
      keeper.receive(one),
      keeper.receive(three),
      keeper.receive(two),
    ])
    assert.deepEqual(
      replies.map(({ accepted }) => accepted),
      [true, true, false],
    )
    assert.equal(keeper.generation, 3)
  })

  it('a disk that is full: STORAGE, the old command goes on, and the next try works', async () => {
    for (let failing = 0; failing < 8; failing += 1) {
      const disk = new SimulatedDisk()
      const keeper = await open(disk)
      await keeper.receive(await sign(1))
      disk.failFrom = { op: disk.operations + failing, code: 'ENOSPC' }
      const reply = await keeper.receive(await sign(2))
      assert.equal(reply.accepted ? '' : reply.code, 'STORAGE', `operation ${failing} fails`)
      assert.equal(keeper.generation, 1)
      assert.ok((await open(disk)).generation >= 1)
      disk.failFrom = undefined
      assert.equal((await keeper.receive(await sign(2))).accepted, true)
      assert.equal((await open(disk)).generation, 2)
    }
  })
})

async function history(): Promise<Map<string, Buffer>> {
  const disk = new SimulatedDisk()
  const keeper = await open(disk)
  for (const generation of [1, 2, 3]) await keeper.receive(await sign(generation))
  const [state] = disk.statesAfter(disk.operations)
  assert.ok(state)
  return new Map(state)
}

describe('damage on the disk', () => {
  const damages: { name: string; of: (content: Buffer) => Buffer }[] = [
    { name: 'empty', of: () => Buffer.alloc(0) },
    { name: 'cut in half', of: (content) => content.subarray(0, content.length / 2) },
    { name: 'zeros', of: (content) => Buffer.alloc(content.length) },
    {
      name: 'one letter changed',
      of: (content) => {
        const copy = Buffer.from(content)
        const at = copy.indexOf('payload') + 40
        copy.writeUInt8(copy.readUInt8(at) === 65 ? 66 : 65, at)
        return copy
      },
    },
    { name: 'some other JSON', of: () => Buffer.from('{"a":1}') },
  ]

  for (const { name, of } of damages) {
    it(`command.json ${name}: the command before it, and no rollback`, async () => {
      const files = await history()
      files.set('/d/command.json', of(files.get('/d/command.json') ?? Buffer.alloc(0)))
      const keeper = await open(new SimulatedDisk(files))
      assert.equal(keeper.generation, 2)
      for (const generation of [1, 2]) {
        const reply = await keeper.receive(await sign(generation))
        assert.equal(reply.accepted ? '' : reply.code, 'COMMAND_REPLAYED')
      }
      const other = await sign(3, { issuedAtMs: 1 })
      assert.equal((await keeper.receive(other)).accepted, false)
      // Exactly the one that was accepted and lost may come again.
      assert.deepEqual(await keeper.receive(await sign(3)), { accepted: true, generation: 3 })
    })

    it(`all command files ${name}: nothing to run, and still no rollback`, async () => {
      const files = await history()
      for (const path of ['/d/command.json', '/d/command.json.old']) {
        files.set(path, of(files.get(path) ?? Buffer.alloc(0)))
      }
      const keeper = await open(new SimulatedDisk(files))
      assert.equal(keeper.command, undefined)
      assert.equal((await keeper.receive(await sign(2))).accepted, false)
      assert.equal((await keeper.receive(await sign(4))).accepted, true)
    })

    it(`highest.json ${name}: the kept command counts`, async () => {
      const files = await history()
      for (const path of ['/d/highest.json', '/d/highest.json.old']) {
        files.set(path, of(Buffer.from('{"payload":"0123456789012345678901234567890123456789"}')))
      }
      const keeper = await open(new SimulatedDisk(files))
      assert.equal(keeper.generation, 3)
      assert.equal((await keeper.receive(await sign(3))).accepted, false)
    })
  }
})

/** The keeper comes up, has what was acknowledged or one more, refuses what is older, and goes on, through a second cut as well. */
async function survives(state: ReadonlyMap<string, Buffer>, atLeast: number): Promise<void> {
  const disk = new SimulatedDisk(state)
  const keeper = await open(disk)
  const has = keeper.generation
  assert.ok(has === atLeast || has === atLeast + 1, `has ${has}, acknowledged ${atLeast}`)
  assert.equal(keeper.command?.functions[0]?.release, has === 0 ? undefined : `r${has}-00000000`)
  if (has > 0) assert.equal((await keeper.receive(await sign(has))).accepted, false)
  assert.equal((await keeper.receive(await sign(has + 1))).accepted, true)
  const acknowledgedAt = disk.operations
  for (let cut = 0; cut <= acknowledgedAt; cut += 1) {
    for (const second of disk.statesAfter(cut)) {
      const { generation } = await open(new SimulatedDisk(second))
      const wanted = cut === acknowledgedAt ? [has + 1] : [has, has + 1]
      assert.ok(wanted.includes(generation), `after a second cut: ${generation}, had ${has}`)
    }
  }
}

describe('a power cut', () => {
  it('at any operation leaves the old or the new command, never less than was acknowledged', async () => {
    const disk = new SimulatedDisk()
    const keeper = await open(disk)
    /** Operations done when a generation was acknowledged. */
    const acknowledged = new Map<number, number>()
    for (const generation of [1, 2, 3]) {
      const functions = [assignmentOf('sieve', { release: `r${generation}-00000000` })]
      const reply = await keeper.receive(await sign(generation, { functions }))
      assert.ok(reply.accepted)
      acknowledged.set(generation, disk.operations)
    }
    let states = 0
    for (let cut = 0; cut <= disk.operations; cut += 1) {
      const atLeast = [...acknowledged].filter(([, done]) => done <= cut).length
      for (const state of disk.statesAfter(cut)) {
        states += 1
        await survives(state, atLeast)
      }
    }
    assert.ok(states > 60, `${states} states`)
  })
})
