import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Compile } from 'typebox/compile'
import { HeartbeatBuilder, HeartbeatLoop, Prober, type HostSample } from '#agent/health/index.ts'
import type { NodeCommand } from '#shared/schemas/command.ts'
import { Heartbeat, type FunctionReport } from '#shared/schemas/health.ts'
import { stateDigest } from '#shared/state-digest.ts'
import { reportOf } from '#test/heartbeat.ts'
import { assignmentOf, commandFor } from '#test/signer.ts'

const log = { debug() {}, info() {}, warn() {} }
const host: HostSample = {
  cpuShare: 0.5,
  load1: 1,
  memoryMiB: 2,
  memoryFreeMiB: 1,
  agentRssMiB: 1,
  diskMiB: 2,
  diskFreeMiB: 1,
}

function builderWith(changes: {
  functions?: () => readonly FunctionReport[]
  command?: () => NodeCommand | undefined
  refusal?: () => Heartbeat['refusal']
  probe?: () => Heartbeat['probe']
}): HeartbeatBuilder {
  return new HeartbeatBuilder({
    node: 'edge-1',
    clock: { nowMs: () => 1_000 },
    command: () => undefined,
    refusal: () => undefined,
    functions: () => [],
    host: async () => host,
    probe: () => undefined,
    everyMs: 5_000,
    ...changes,
  })
}

describe('a heartbeat', () => {
  it('is as the schema says, numbered from 1, with one boot id per start', async () => {
    const builder = builderWith({})
    const [first, second] = [await builder.build(), await builder.build()]
    const validator = Compile(Heartbeat)
    assert.deepEqual(validator.Errors(first), [])
    assert.deepEqual([first.seq, second.seq], [1, 2])
    assert.equal(first.boot, second.boot)
    assert.notEqual(first.boot, (await builderWith({}).build()).boot)
    assert.equal(first.generation, 0)
    assert.equal(first.stateDigest, stateDigest([]))
    assert.deepEqual([first.sentAtMs, first.host], [1_000, host])
  })

  it('fits into a message of the broker, however much failing functions have to say', async () => {
    const text = '\u001b[31mé'.repeat(333)
    const failing = (count: number) =>
      Array.from({ length: count }, (_, index) =>
        reportOf(`site/f${index}`, 'r1-00000000', {
          state: 'failed',
          reason: { code: 'FUNCTION_LOAD', message: text },
        }),
      )
    const few = await builderWith({ functions: () => failing(3) }).build()
    assert.ok(few.functions.every(({ reason }) => reason?.message === text))
    const many = await builderWith({ functions: () => failing(500) }).build()
    assert.ok(Buffer.byteLength(JSON.stringify(many)) < 1_048_576)
    assert.equal(many.functions.length, 500)
    for (const { reason } of many.functions) {
      assert.equal(reason?.code, 'FUNCTION_LOAD')
      assert.ok((reason?.message.length ?? 0) > 100, 'no more is cut than has to be')
    }
  })

  it('has generation and digest of the command, refusal and probe when there are any', async () => {
    let command = commandFor('edge-1', 4, { functions: [assignmentOf('a')] })
    const refusal = { code: 'COMMAND_EXPIRED', message: 'late', atMs: 5 }
    const probe = { ok: true, atMs: 1, tookMs: 2 }
    const builder = builderWith({
      command: () => command,
      refusal: () => refusal,
      probe: () => probe,
    })
    const first = await builder.build()
    assert.equal(first.generation, 4)
    assert.equal(first.stateDigest, stateDigest(command.functions))
    assert.deepEqual([first.refusal, first.probe], [refusal, probe])
    command = commandFor('edge-1', 5, { functions: [assignmentOf('b')] })
    assert.equal((await builder.build()).stateDigest, stateDigest(command.functions))
  })
})

describe('the loop', () => {
  interface LoopWorld {
    connected: boolean
    readonly sent: number[]
    builds: number
  }

  function loopWith(intervalMs: number, build?: (world: LoopWorld) => void) {
    const world: LoopWorld = { connected: true, sent: [], builds: 0 }
    const builder = builderWith({})
    const loop = HeartbeatLoop.start({
      intervalMs,
      connected: () => world.connected,
      build: () => {
        world.builds += 1
        build?.(world)
        return builder.build()
      },
      publish: ({ seq }) => {
        world.sent.push(seq)
        return true
      },
      log,
    })
    return { world, loop }
  }

  it('beats at once, when woken, and a last time when closed; never twice at once', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { world, loop } = loopWith(5_000)
    const turn = async (ms: number) => {
      t.mock.timers.tick(ms)
      for (let i = 0; i < 20; i += 1) await Promise.resolve()
    }
    await turn(0)
    assert.deepEqual(world.sent, [1])
    await turn(150)
    loop.wake()
    await turn(0)
    assert.deepEqual(world.sent, [1, 2])
    // Woken again right away: not before the gap is over.
    loop.wake()
    await turn(50)
    assert.deepEqual(world.sent, [1, 2])
    await turn(60)
    assert.deepEqual(world.sent, [1, 2, 3])
    await turn(100)
    await turn(4_900)
    assert.deepEqual(world.sent, [1, 2, 3, 4])
    const closing = loop.close()
    await turn(5_000)
    await closing
    assert.deepEqual(world.sent, [1, 2, 3, 4, 5])
    await turn(20_000)
    assert.equal(world.sent.length, 5)
    assert.equal(loop.sent, 5)
  })

  it('while the broker is away builds and queues nothing, and goes on afterwards', async () => {
    const { world, loop } = loopWith(1)
    world.connected = false
    await loop.close()
    const builds = world.builds
    await loop.close()
    assert.equal(world.builds, builds)
    assert.ok(builds <= 1)
  })

  it('a beat that fails is skipped', async () => {
    const { world, loop } = loopWith(1, ({ builds }) => {
      if (builds === 1) throw new Error('procfs is gone')
    })
    await loop.close()
    assert.deepEqual(world.sent, [1])
    assert.equal(world.builds, 2)
  })
})

describe('the deep probe', () => {
  it('keeps its last result, failures with their reason', async () => {
    const outcomes = [
      () => Promise.resolve(1),
      () => Promise.reject(new Error('no space left on device')),
    ]
    const failed = Promise.withResolvers<void>()
    const prober = Prober.start({
      everyMs: 1,
      probe: () => {
        const next = outcomes.shift()
        if (next !== undefined) return next()
        failed.resolve()
        return new Promise(() => {})
      },
      clock: { nowMs: () => 77 },
      log,
    })
    await failed.promise
    const { ok, atMs, error } = prober.result ?? {}
    assert.deepEqual([ok, atMs, error], [false, 77, 'no space left on device'])
  })

  it('close() ends a probe that hangs', async () => {
    const begun = Promise.withResolvers<void>()
    const prober = Prober.start({
      everyMs: 1,
      probe: (signal) =>
        new Promise((_, reject) => {
          begun.resolve()
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        }),
      clock: { nowMs: () => 0 },
      log,
    })
    await begun.promise
    await prober.close()
    assert.equal(prober.result, undefined)
  })
})
