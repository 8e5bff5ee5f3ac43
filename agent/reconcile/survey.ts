import type { HandlerRecord, ObservedHandler } from '#agent/handlers/index.ts'

export interface SurveyInput {
  /** What the engine has of this installation. */
  readonly observed: readonly ObservedHandler[]
  /** Handlers' folders on disk, and the readable records in them. */
  readonly folderIds: readonly string[]
  readonly records: readonly HandlerRecord[]
  /** Handlers this agent knows: those whose process the engine must have, and all. */
  readonly expectedIds: ReadonlySet<string>
  readonly knownIds: ReadonlySet<string>
}

export interface Survey {
  /** Run or are paused, are written down, and nobody looks after them: can be adopted. */
  readonly found: readonly { readonly record: HandlerRecord; readonly paused: boolean }[]
  /** Everything else that nobody looks after: a container or process, a folder, or both. */
  readonly orphanIds: readonly string[]
  /** Known here, and gone or ended there without a word (the word was lost). */
  readonly ended: readonly {
    readonly id: string
    readonly exitCode: number
    readonly oomKilled: boolean
  }[]
}

/** Compares what the engine and the disk have with what this agent knows. Pure. */
export function survey(input: SurveyInput): Survey {
  const { observed, folderIds, records, expectedIds, knownIds } = input
  const running = new Map(observed.map((one) => [one.id, one]))
  const found = records.flatMap((record) => {
    const state = running.get(record.id)?.state
    if (knownIds.has(record.id) || (state !== 'running' && state !== 'paused')) return []
    return [{ record, paused: state === 'paused' }]
  })
  const foundIds = new Set(found.map(({ record }) => record.id))
  const allIds = new Set([...running.keys(), ...folderIds])
  const orphanIds = [...allIds].filter((id) => !knownIds.has(id) && !foundIds.has(id)).toSorted()
  const ended = [...expectedIds]
    .filter((id) => (running.get(id)?.state ?? 'exited') === 'exited')
    .map((id) => {
      const { exitCode = -1, oomKilled = false } = running.get(id) ?? {}
      return { id, exitCode, oomKilled }
    })
  return { found, orphanIds, ended }
}
