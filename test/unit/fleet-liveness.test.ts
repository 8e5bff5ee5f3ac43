import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Liveness, TICK_MS } from '#controller/fleet/index.ts'
import { heartbeatOf } from '#test/heartbeat.ts'

const BEAT_MS = 1_000
const start = () => new Liveness({ heartbeatMs: BEAT_MS, nowMs: 0 })

it('a node that was never heard is unknown at first, and offline when its time has passed', () => {
  const liveness = start()
  assert.equal(liveness.presence('n', 0), 'unknown')
  assert.equal(liveness.presence('n', 3_499), 'unknown')
  assert.equal(liveness.presence('n', 3_500), 'offline')
  assert.equal(liveness.unsureUntilMs, 3_500)
})

it('a node is offline after three missed beats, once, and back with the next', () => {
  const liveness = start()
  liveness.beat(heartbeatOf('n', { seq: 1 }), 0)
  for (let nowMs = TICK_MS; nowMs <= 3_500; nowMs += TICK_MS) {
    assert.deepEqual(liveness.tick(nowMs), [])
  }
  assert.equal(liveness.onlineCount(), 1)
  assert.deepEqual(liveness.tick(3_501), ['n'])
  assert.deepEqual(liveness.tick(3_751), [])
  assert.equal(liveness.presence('n', 9_000), 'offline')
  assert.equal(liveness.onlineCount(), 0)
  const { back } = liveness.beat(heartbeatOf('n', { seq: 10 }), 9_001)
  assert.equal(back, true)
  assert.equal(liveness.presence('n', 9_001), 'online')
})

it('nobody is offline because this process stood still, but who stays silent after that is', () => {
  const liveness = start()
  liveness.beat(heartbeatOf('n', { seq: 1 }), 0)
  assert.deepEqual(liveness.tick(TICK_MS), [])
  assert.deepEqual(liveness.tick(60_000), [])
  const gone: string[] = []
  for (let nowMs = 60_000; nowMs <= 64_000; nowMs += TICK_MS) gone.push(...liveness.tick(nowMs))
  assert.deepEqual(gone, ['n'])
})

it('gaps in the sequence are counted, within a boot only', () => {
  const liveness = start()
  const beat = (boot: string, seq: number) => liveness.beat(heartbeatOf('n', { boot, seq }), 0)
  assert.deepEqual(beat('a', 5), { kind: 'taken', missed: 0, newBoot: false, back: true })
  assert.deepEqual(beat('a', 6), { kind: 'taken', missed: 0, newBoot: false, back: false })
  assert.deepEqual(beat('a', 9), { kind: 'taken', missed: 2, newBoot: false, back: false })
  assert.deepEqual(beat('b', 1), { kind: 'taken', missed: 0, newBoot: true, back: false })
  assert.equal(liveness.get('n')?.missedBeats, 2)
  assert.equal(liveness.get('n')?.boots, 2)
})

it('a beat that is older than one seen changes nothing but that the node is there', () => {
  const liveness = start()
  liveness.beat(heartbeatOf('n', { seq: 7, generation: 3 }), 0)
  assert.equal(liveness.beat(heartbeatOf('n', { seq: 6, generation: 2 }), 500).kind, 'stale')
  assert.equal(liveness.beat(heartbeatOf('n', { seq: 7, generation: 2 }), 600).kind, 'stale')
  const life = liveness.get('n')
  assert.equal(life?.heartbeat?.generation, 3)
  assert.equal(life?.kept?.generation, 3)
  assert.equal(life?.lastSeenMs, 600)
})

it('a refusal lasts until the node has accepted', () => {
  const liveness = start()
  const refusal = { code: 'COMMAND_EXPIRED', message: 'too late', atMs: 5 }
  liveness.answered('n', 3, refusal, 5)
  assert.deepEqual(liveness.get('n')?.refusal, refusal)
  liveness.beat(heartbeatOf('n', { seq: 1, generation: 3, refusal }), 6)
  assert.deepEqual(liveness.get('n')?.refusal, refusal)
  liveness.answered('n', 4, undefined, 7)
  assert.equal(liveness.get('n')?.refusal, undefined)
  assert.deepEqual(liveness.get('n')?.kept, { generation: 4 })
})

it('after a lost connection silent nodes are unknown again, not offline', () => {
  const liveness = start()
  assert.equal(liveness.presence('n', 60_000), 'offline')
  liveness.reconnected(60_000)
  assert.equal(liveness.presence('n', 60_001), 'unknown')
  assert.equal(liveness.presence('n', 63_500), 'offline')
})

it('a deleted node is forgotten', () => {
  const liveness = start()
  liveness.hello('n', 0, 0)
  liveness.forget('n')
  assert.equal(liveness.get('n'), undefined)
})
