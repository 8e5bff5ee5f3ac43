import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { specDigestOf, type HandlerRecord, type ObservedHandler } from '#agent/handlers/index.ts'
import { BACKOFF, backoffMs, survey } from '#agent/reconcile/index.ts'
import type { Assignment, FunctionSettings } from '#shared/schemas/command.ts'
import { SETTINGS } from '#test/reconcile-scope.ts'

describe('backoffMs', () => {
  it('costs nothing the first time, then doubles up to its cap', () => {
    const pauses = [1, 2, 3, 4, 5].map((failures) => backoffMs(failures, 1))
    assert.deepEqual(pauses, [0, 250, 500, 1_000, 2_000])
    assert.equal(backoffMs(50, 1), BACKOFF.lastMs)
    assert.equal(backoffMs(5_000, 1), BACKOFF.lastMs)
  })

  it('spreads over the upper half', () => {
    assert.equal(backoffMs(3, 0), 250)
    assert.equal(backoffMs(3, 0.5), 375)
  })
})

describe('survey', () => {
  it('finds what runs and is written down; all else that nobody knows is an orphan', () => {
    const result = survey({
      observed: [
        observed('run', 'running'),
        observed('end', 'exited'),
        observed('new', 'created'),
        observed('bare', 'running'),
        observed('rest', 'paused'),
      ],
      folderIds: ['run', 'end', 'new', 'empty', 'rest'],
      records: [record('run'), record('end'), record('new'), record('rest')],
      expectedIds: new Set(),
      knownIds: new Set(),
    })
    assert.deepEqual(
      result.found.map(({ record: { id }, paused }) => [id, paused]),
      [
        ['run', false],
        ['rest', true],
      ],
    )
    assert.deepEqual(result.orphanIds, ['bare', 'empty', 'end', 'new'])
    assert.deepEqual(result.ended, [])
  })

  it('sees that a known handler ended, with what the engine knows of it, and leaves the others alone', () => {
    const result = survey({
      observed: [
        observed('run', 'running'),
        observed('end', 'exited'),
        observed('starts', 'created'),
      ],
      folderIds: ['run', 'end', 'gone', 'starts'],
      records: [record('run'), record('end'), record('gone'), record('starts')],
      expectedIds: new Set(['run', 'end', 'gone']),
      knownIds: new Set(['run', 'end', 'gone', 'starts']),
    })
    assert.deepEqual(result, {
      found: [],
      orphanIds: [],
      ended: [
        { id: 'end', exitCode: 4, oomKilled: true },
        { id: 'gone', exitCode: -1, oomKilled: false },
      ],
    })
  })
})

describe('specDigestOf', () => {
  it('is another one for everything that a handler cannot change while it runs', () => {
    const others: readonly Partial<FunctionSettings>[] = [
      { memoryMiB: 99 },
      { cpus: 0.5 },
      { pids: 9 },
      { network: 'outbound' },
      { env: { A: '1' } },
      { concurrency: 2 },
      { timeoutMs: 77 },
      { isolation: 'fresh' },
    ]
    const digests = [{}, ...others].map((settings) => specDigestOf(assignment(settings), 'image'))
    digests.push(specDigestOf(assignment(), 'another image'))
    assert.equal(new Set(digests).size, others.length + 2)
  })

  it('is the same for settings that only the agent applies, and for any order of variables', () => {
    const digest = specDigestOf(assignment({ env: { A: '1', B: '2' } }), 'image')
    const scale = {
      replicas: 9,
      replicasMax: 10,
      idleMs: 5,
      removeMs: 6,
      isolation: 'shared',
    } as const
    const same = { env: { B: '2', A: '1' }, ...scale, queue: 1, errors: 'tinyfaas' } as const
    assert.equal(specDigestOf(assignment(same), 'image'), digest)
  })
})

function record(id: string): HandlerRecord {
  return {
    id,
    fn: 'f',
    release: 'r1-00000000',
    runtime: 'nodejs',
    digest: `sha256:${'0'.repeat(64)}`,
    bundleFolder: '/b',
    limits: { memoryMiB: 1, cpus: 1, pids: 1 },
    network: 'none',
    specDigest: 's',
    env: {},
    concurrency: 1,
    timeoutMs: 1,
  }
}

function observed(id: string, state: ObservedHandler['state']): ObservedHandler {
  return {
    id,
    fn: 'f',
    release: 'r1-00000000',
    specDigest: 's',
    state,
    ...(state === 'exited' ? { exitCode: 4, oomKilled: true } : {}),
  }
}

function assignment(settings: Partial<FunctionSettings> = {}): Assignment {
  return {
    fn: 'f',
    release: 'r1-00000000',
    runtime: 'nodejs',
    artifact: { digest: `sha256:${'0'.repeat(64)}`, bytes: 1 },
    settings: { ...SETTINGS, ...settings },
  }
}
