import { AsyncLocalStorage } from 'node:async_hooks'
import { chmodSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Fault } from '#shared/fault.ts'
import { MIGRATIONS } from './migrations.ts'
import type { Store, StoreTransaction } from './model.ts'
import { SqliteReads } from './reads.ts'
import { integer, Statements } from './statements.ts'
import { SqliteTransaction } from './writes.ts'

const BUSY_TIMEOUT_MS = 10_000

/**
 * The truth in one SQLite file (WAL, synchronous=FULL: what was committed survives a power cut).
 *
 * Two connections: transactions write on one, one after the other; plain reads use the other and therefore never see
 * a transaction that has not been committed.
 */
export class SqliteStore extends SqliteReads implements Store {
  readonly #writer: Statements
  readonly #transaction: SqliteTransaction
  readonly #inside = new AsyncLocalStorage<true>()
  #tail: Promise<unknown> = Promise.resolve()
  #closed = false

  /** @throws Fault `STORAGE` when the file cannot be opened or was written by a newer version */
  static open(file: string): SqliteStore {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    try {
      const writer = new Statements(new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS }))
      writer.db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
      writer.db.exec('PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 1000')
      chmodSync(file, 0o600)
      migrate(writer)
      const reader = new DatabaseSync(file, { readOnly: true, timeout: BUSY_TIMEOUT_MS })
      return new SqliteStore(writer, new Statements(reader))
    } catch (error) {
      if (error instanceof Fault) throw error
      const why = error instanceof Error ? error.message : String(error)
      throw new Fault('STORAGE', `cannot open ${file}: ${why}`, { file }, { cause: error })
    }
  }

  private constructor(writer: Statements, reader: Statements) {
    super(reader)
    this.#writer = writer
    this.#transaction = new SqliteTransaction(writer)
  }

  async transaction<T>(work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
    if (this.#inside.getStore() === true) {
      throw new TypeError('a transaction inside a transaction would wait for itself')
    }
    const run = this.#tail.then(() => this.#inside.run(true, () => this.#attempt(work)))
    this.#tail = run.catch(() => undefined)
    return run
  }

  /** How the writing connection is set: 2 is FULL, 1 is on. */
  durability(): { readonly synchronous: number; readonly foreignKeys: number } {
    const ask = (pragma: string, key: string) =>
      this.#writer.get(`PRAGMA ${pragma}`, [], (row) => integer(row, key)) ?? 0
    return {
      synchronous: ask('synchronous', 'synchronous'),
      foreignKeys: ask('foreign_keys', 'foreign_keys'),
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#tail
    this.sql.db.close()
    this.#writer.db.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #attempt<T>(work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
    if (!this.#writer.db.isOpen) throw new Fault('SHUTTING_DOWN', 'the store is closed')
    this.#writer.db.exec('BEGIN IMMEDIATE')
    try {
      const result = await work(this.#transaction)
      this.#writer.db.exec('COMMIT')
      return result
    } catch (error) {
      if (this.#writer.db.isTransaction) this.#writer.db.exec('ROLLBACK')
      throw error
    }
  }
}

function migrate(sql: Statements): void {
  sql.db.exec(
    `CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied_at_ms INTEGER NOT NULL) STRICT`,
  )
  const row = sql.get('SELECT COALESCE(MAX(version), 0) AS v FROM migrations', [], (r) =>
    integer(r, 'v'),
  )
  const version = row ?? 0
  if (version > MIGRATIONS.length) {
    throw new Fault(
      'STORAGE',
      `the database has version ${version}, this program knows up to ${MIGRATIONS.length}: start the newer version, or restore a backup`,
    )
  }
  for (const [index, script] of MIGRATIONS.entries()) {
    if (index < version) continue
    sql.db.exec('BEGIN IMMEDIATE')
    try {
      sql.db.exec(script)
      sql.run('INSERT INTO migrations (version, applied_at_ms) VALUES (?, ?)', [
        index + 1,
        Date.now(),
      ])
      sql.db.exec('COMMIT')
    } catch (error) {
      sql.db.exec('ROLLBACK')
      throw error
    }
  }
}
