import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SqliteStore, type RolloutRow, type Store } from '#controller/store/index.ts'
import { Fault } from '#shared/fault.ts'
import type { Release } from '#shared/schemas/api.ts'
import { settingsOf } from '#test/settings.ts'
import { tempFolder } from '#test/temp.ts'

const digestOf = (hex: string) => `sha256:${hex.repeat(64)}`
const settings = settingsOf({ env: { A: '1' } })
const envelope = { payload: 'e30', signatures: [{ protected: 'e30', signature: 'AA' }] }
const release = (number: number, different: Partial<Release> = {}): Release => ({
  id: `r${number}-aaaaaaaa`,
  function: 'sieve',
  number,
  runtime: 'nodejs',
  digest: digestOf('a'),
  bytes: 7,
  arch: 'any',
  sourceHash: 's',
  createdAtMs: 1,
  ...different,
})

async function fill(store: Store): Promise<void> {
  await store.transaction(async (tx) => {
    await tx.putFunction({ name: 'sieve', createdAtMs: 1, placements: [] })
    await tx.putArtifact({ digest: digestOf('a'), bytes: 7, createdAtMs: 1 })
    await tx.putArtifact({ digest: digestOf('b'), bytes: 8, createdAtMs: 1 })
    await tx.insertRelease(release(1))
    await tx.putNode({
      id: 'n',
      nodeKey: 'U',
      arch: 'arm64',
      labels: { site: 'north' },
      createdAtMs: 1,
      lastSeenMs: 0,
    })
    await tx.putAssignment({ fn: 'sieve', node: 'n', release: 'r1-aaaaaaaa', settings })
  })
}

it('what was committed is there after a restart, exactly', async () => {
  await using folder = await tempFolder()
  const rollout: RolloutRow = {
    id: 'ro',
    function: 'sieve',
    release: 'r1-aaaaaaaa',
    selector: '*',
    settings,
    state: 'rolling',
    createdAtMs: 1,
    deadlineAtMs: 2,
    nodes: [
      {
        node: 'n',
        state: 'failed',
        sinceMs: 3,
        reason: { code: 'FUNCTION_LOAD', message: 'x' },
        previous: { release: 'r0-00000000', settings },
        generation: 4,
        troubleSinceMs: 5,
      },
    ],
  }
  const placements = [{ selector: '*', release: 'r1-aaaaaaaa', settings }]
  {
    await using store = SqliteStore.open(folder.join('shoal.db'))
    await fill(store)
    await store.transaction(async (tx) => {
      await tx.putRollout(rollout)
      await tx.putFunction({ name: 'sieve', createdAtMs: 1, settings, placements })
      await tx.putNodeCommand({
        node: 'n',
        generation: 3,
        stateDigest: 'd',
        envelope,
        issuedAtMs: 1,
        expiresAtMs: 2,
        acceptedGeneration: 2,
      })
    })
  }
  await using store = SqliteStore.open(folder.join('shoal.db'))
  assert.deepEqual(await store.rollout('ro'), rollout)
  assert.deepEqual(await store.function('sieve'), {
    name: 'sieve',
    createdAtMs: 1,
    settings,
    placements,
  })
  assert.deepEqual(await store.releases('sieve'), [release(1)])
  assert.deepEqual(await store.assignments({ node: 'n' }), [
    { fn: 'sieve', node: 'n', release: 'r1-aaaaaaaa', settings },
  ])
  assert.equal((await store.nodeCommand('n'))?.generation, 3)
  assert.deepEqual((await store.node('n'))?.labels, { site: 'north' })
})

it('a transaction that throws changes nothing, and others never see it half done', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  const half = Promise.withResolvers<void>()
  const failing = store.transaction(async (tx) => {
    await tx.putFunction({ name: 'sieve', createdAtMs: 1, placements: [] })
    assert.ok(await tx.function('sieve'), 'it sees its own')
    await half.promise
    throw new Error('changed my mind')
  })
  await sleep(5)
  assert.deepEqual(await store.functions(), [])
  half.resolve()
  await assert.rejects(failing, /changed my mind/)
  assert.deepEqual(await store.functions(), [])
  await store.transaction((tx) => tx.putFunction({ name: 'echo', createdAtMs: 1, placements: [] }))
  assert.equal((await store.functions()).length, 1)
})

it('transactions run one after the other', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  const add = () =>
    store.transaction(async (tx) => {
      const before = Number((await tx.setting('count')) ?? 0)
      await sleep(1)
      await tx.putSetting('count', String(before + 1))
    })
  await Promise.all(Array.from({ length: 20 }, add))
  assert.equal(await store.setting('count'), '20')
})

it('a transaction inside a transaction is refused rather than waited for', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  await assert.rejects(
    store.transaction(() => store.transaction(async () => undefined)),
    TypeError,
  )
})

it('the database itself refuses a generation that falls', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  await fill(store)
  const put = (generation: number) =>
    store.transaction((tx) =>
      tx.putNodeCommand({
        node: 'n',
        generation,
        stateDigest: 'd',
        envelope,
        issuedAtMs: 1,
        expiresAtMs: 2,
        acceptedGeneration: 0,
      }),
    )
  await put(5)
  await assert.rejects(put(4), /a generation never falls/)
  assert.equal((await store.nodeCommand('n'))?.generation, 5)
})

it('a deleted function takes its releases and assignments along; its numbers go on', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  await fill(store)
  assert.equal(await store.transaction((tx) => tx.takeReleaseNumber('sieve')), 1)
  await store.transaction((tx) => tx.deleteFunction('sieve'))
  assert.deepEqual([await store.releases('sieve'), await store.assignments()], [[], []])
  assert.equal(await store.transaction((tx) => tx.takeReleaseNumber('sieve')), 2)
  const pruned = await store.transaction((tx) => tx.pruneArtifacts())
  assert.deepEqual(pruned.toSorted(), [digestOf('a'), digestOf('b')])
})

it('old releases go, except those that something refers to', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  await fill(store)
  await store.transaction(async (tx) => {
    for (let number = 2; number <= 8; number += 1) await tx.insertRelease(release(number))
    const placements = [{ selector: '*', release: 'r2-aaaaaaaa', settings }]
    await tx.putFunction({ name: 'sieve', createdAtMs: 1, settings, placements })
    await tx.putRollout({
      id: 'ro',
      function: 'sieve',
      release: 'r3-aaaaaaaa',
      selector: '*',
      settings,
      state: 'waiting',
      createdAtMs: 1,
      deadlineAtMs: 2,
      nodes: [
        {
          node: 'n',
          state: 'offline',
          sinceMs: 1,
          previous: { release: 'r4-aaaaaaaa', settings },
        },
      ],
    })
    assert.equal(await tx.pruneReleases('sieve', 2), 2)
  })
  const left = (await store.releases('sieve')).map(({ number }) => number)
  // 1 is assigned, 2 placed, 3 on its way, 4 what an abort goes back to; 7 and 8 are the newest.
  assert.deepEqual(left, [8, 7, 4, 3, 2, 1])
})

it('rollouts that have ended are forgotten, the oldest first; open ones never', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  await store.transaction(async (tx) => {
    for (let index = 0; index < 6; index += 1) {
      await tx.putRollout({
        id: `ro-${index}`,
        function: 'sieve',
        release: 'r1-aaaaaaaa',
        selector: '*',
        settings,
        state: index === 0 ? 'waiting' : 'done',
        createdAtMs: index,
        deadlineAtMs: 2,
        nodes: [],
      })
    }
    await tx.pruneRollouts(3)
  })
  assert.deepEqual(
    (await store.rollouts()).map(({ id }) => id),
    ['ro-5', 'ro-4', 'ro-3', 'ro-0'],
  )
})

it('a database of a newer version is refused, and untouched', async () => {
  await using folder = await tempFolder()
  const file = folder.join('shoal.db')
  await SqliteStore.open(file).close()
  const db = new DatabaseSync(file)
  db.exec('INSERT INTO migrations VALUES (999, 0)')
  db.close()
  assert.throws(
    () => SqliteStore.open(file),
    (error: unknown) => Fault.is(error, 'STORAGE') && error.message.includes('version 999'),
  )
})

it('survives losing power: synchronous is FULL and the journal is a WAL', async () => {
  await using folder = await tempFolder()
  await using store = SqliteStore.open(folder.join('shoal.db'))
  const db = new DatabaseSync(folder.join('shoal.db'), { readOnly: true })
  assert.equal(db.prepare('PRAGMA journal_mode').get()?.['journal_mode'], 'wal')
  db.close()
  // What the store's own connection has can only be asked there.
  assert.deepEqual(store.durability(), { synchronous: 2, foreignKeys: 1 })
})

it('a closed store refuses work', async () => {
  await using folder = await tempFolder()
  const store = SqliteStore.open(folder.join('shoal.db'))
  await store.close()
  await store.close()
  await assert.rejects(
    store.transaction(async () => undefined),
    (error: unknown) => Fault.is(error, 'SHUTTING_DOWN'),
  )
})
