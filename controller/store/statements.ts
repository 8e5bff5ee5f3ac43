import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite'

export type Row = Readonly<Record<string, unknown>>

/** One connection with its prepared statements. */
export class Statements {
  readonly db: DatabaseSync
  readonly #prepared = new Map<string, StatementSync>()

  constructor(db: DatabaseSync) {
    this.db = db
  }

  all<T>(sql: string, values: readonly SQLInputValue[], read: (row: Row) => T): T[] {
    return this.#prepare(sql)
      .all(...values)
      .map((row) => read(row))
  }

  get<T>(sql: string, values: readonly SQLInputValue[], read: (row: Row) => T): T | undefined {
    const row = this.#prepare(sql).get(...values)
    return row === undefined ? undefined : read(row)
  }

  /** Number of rows changed. */
  run(sql: string, values: readonly SQLInputValue[] = []): number {
    return Number(this.#prepare(sql).run(...values).changes)
  }

  #prepare(sql: string): StatementSync {
    const known = this.#prepared.get(sql)
    if (known !== undefined) return known
    const made = this.db.prepare(sql)
    this.#prepared.set(sql, made)
    return made
  }
}

export function text(row: Row, key: string): string {
  const value = row[key]
  if (typeof value !== 'string') throw new TypeError(`column ${key} is not text`)
  return value
}

export function integer(row: Row, key: string): number {
  const value = row[key]
  if (typeof value !== 'number') throw new TypeError(`column ${key} is not an integer`)
  return value
}

/** A column that holds one of a few words. */
export function word<T extends string>(row: Row, key: string, words: readonly T[]): T {
  const value = text(row, key)
  const found = words.find((candidate) => candidate === value)
  if (found === undefined) throw new TypeError(`column ${key} holds ${value}`)
  return found
}

export function isNull(row: Row, key: string): boolean {
  return row[key] === null
}

/** A column that this program wrote as JSON, as the type that the caller knows it has. */
export function json(row: Row, key: string) {
  return JSON.parse(text(row, key))
}

/** `{ [as]: read() }`, or nothing when the column is NULL: absent keys, not undefined ones. */
export function optional<K extends string, T>(
  row: Row,
  key: string,
  as: K,
  read: (row: Row, key: string) => T,
): { [P in K]?: T } {
  if (isNull(row, key)) return {}
  const one: { [P in K]?: T } = {}
  one[as] = read(row, key)
  return one
}
