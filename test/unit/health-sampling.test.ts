import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { cpuShare, notServing, parseCpuTimes, parseMemory } from '#agent/health/index.ts'
import type { FunctionReport } from '#shared/schemas/health.ts'

const stat = (fields: string) => `cpu  ${fields}\ncpu0 1 2 3 4 5 6 7 8 0 0\nintr 5\n`

const of = ([busy, total]: readonly [number, number]) => ({ busy, total })

describe('CPU use', () => {
  it('counts everything but idle and waiting for disks; guest time is in user time already', () => {
    assert.deepEqual(parseCpuTimes(stat('100 10 50 800 40 5 5 30 90 1')), {
      busy: 200,
      total: 1_040,
    })
  })

  const rows = [
    { name: 'nothing new', before: [5, 10], after: [5, 10], share: 0 },
    { name: 'half', before: [0, 0], after: [50, 100], share: 0.5 },
    { name: 'all', before: [100, 200], after: [150, 250], share: 1 },
    {
      name: 'counters that went back (a container was moved)',
      before: [100, 200],
      after: [10, 20],
      share: 0,
    },
  ] as const
  for (const { name, before, after, share } of rows) {
    it(`share: ${name}`, () => {
      assert.equal(cpuShare(of(before), of(after)), share)
    })
  }

  it('of text that is not procfs is 0', () => {
    assert.deepEqual(parseCpuTimes('nothing'), { busy: 0, total: 0 })
  })
})

it('free memory is what can be had, not what is unused', () => {
  const text =
    'MemTotal:       24576000 kB\nMemFree:          102400 kB\nMemAvailable:   12288000 kB\n'
  assert.deepEqual(parseMemory(text), { memoryMiB: 24_000, memoryFreeMiB: 12_000 })
})

const report = (fn: string, changes: Partial<FunctionReport>): FunctionReport => ({
  fn,
  release: 'r2-00000000',
  serving: [],
  state: 'pending',
  handlers: { ready: 0, starting: 0, restarts: 0 },
  calls: {
    ok: 0,
    failed: 0,
    refused: 0,
    timedOut: 0,
    cancelled: 0,
    asyncAccepted: 0,
    asyncDone: 0,
    asyncFailed: 0,
    inFlight: 0,
    queued: 0,
  },
  ...changes,
})

describe('readiness', () => {
  it('lists functions that nothing answers for, with their reasons, and no others', () => {
    const reason = { code: 'IMAGE_MISSING', message: 'none' }
    const reports = [
      report('new', {}),
      report('broken', { state: 'failed', reason }),
      report('switching', { state: 'starting', serving: ['r1-00000000'] }),
      report('new release broken', { state: 'failed', reason, serving: ['r1-00000000'] }),
      report('fine', { state: 'ready', serving: ['r2-00000000'] }),
    ]
    assert.deepEqual(notServing(reports), [
      { fn: 'new', state: 'pending' },
      { fn: 'broken', state: 'failed', ...reason },
    ])
  })
})
