import type { Clock } from '#shared/clock.ts'
import type { Assignment, Envelope, NodeCommand } from '#shared/schemas/command.ts'
import { stateDigest } from '#shared/state-digest.ts'
import type { NodeCommandRow, Store, StoreReads } from '../store/index.ts'
import type { Kept } from './liveness.ts'

const EXPIRES_MS = 24 * 3_600_000

/** Signs commands; what the fleet needs of `controller/signing`. */
export interface CommandSigner {
  signCommand(command: NodeCommand): Promise<Envelope>
  /** Trust documents above a version, oldest first: what a node that has that version lacks. */
  trustChain(aboveVersion: number): readonly Envelope[]
}

export interface CommandsOptions {
  readonly store: Store
  readonly signer: CommandSigner
  readonly clock: Clock
  /** How long a node may take to receive a command; default 24 h. */
  readonly expiresMs?: number
}

/** Each node's newest command: its whole desired state, made from its assignments. */
export class Commands {
  readonly #options: CommandsOptions

  constructor(options: CommandsOptions) {
    this.#options = options
  }

  /**
   * The command that says what the node shall run now. Makes a new one, with a higher generation, when
   *
   * - the assignments have changed since,
   * - the last one has expired before the node kept it,
   * - the node keeps something else under the same generation, or a higher generation than ever was made here
   *   (a controller restored from a backup).
   *
   * Generation and envelope are in SQL before this returns, so before anything is sent. Nothing when the node never had
   * a function.
   *
   * @param kept - What the node says it keeps, when it has said so
   * @throws Fault `COMMAND_MALFORMED` when the command would be too large
   */
  async ensure(node: string, kept?: Kept): Promise<NodeCommandRow | undefined> {
    const { store, signer, clock, expiresMs = EXPIRES_MS } = this.#options
    return store.transaction(async (tx) => {
      const row = await tx.nodeCommand(node)
      const functions = await assignmentsOf(tx, node)
      const digest = stateDigest(functions)
      const nowMs = clock.nowMs()
      if (row === undefined && functions.length === 0 && (kept?.generation ?? 0) === 0) {
        return undefined
      }
      if (row !== undefined && !isOutdated(row, digest, kept, nowMs)) return row
      const generation = Math.max(row?.generation ?? 0, kept?.generation ?? 0) + 1
      const command: NodeCommand = {
        node,
        generation,
        issuedAtMs: nowMs,
        expiresAtMs: nowMs + expiresMs,
        functions,
      }
      const made: NodeCommandRow = {
        node,
        generation,
        stateDigest: digest,
        envelope: await signer.signCommand(command),
        issuedAtMs: nowMs,
        expiresAtMs: command.expiresAtMs,
        acceptedGeneration: row?.acceptedGeneration ?? 0,
      }
      await tx.putNodeCommand(made)
      return made
    })
  }

  /** Notes which generation the node says it keeps. */
  async keptBy(node: string, generation: number): Promise<void> {
    const { store } = this.#options
    const seen = await store.nodeCommand(node)
    if (seen === undefined || seen.acceptedGeneration === generation) return
    await store.transaction(async (tx) => {
      const row = await tx.nodeCommand(node)
      if (row === undefined) return
      await tx.putNodeCommand({ ...row, acceptedGeneration: generation })
    })
  }
}

function isOutdated(
  row: NodeCommandRow,
  digest: string,
  kept: Kept | undefined,
  nowMs: number,
): boolean {
  if (row.stateDigest !== digest) return true
  const keptGeneration = kept?.generation ?? row.acceptedGeneration
  if (keptGeneration > row.generation) return true
  if (keptGeneration < row.generation) return nowMs >= row.expiresAtMs
  return kept?.stateDigest !== undefined && kept.stateDigest !== digest
}

async function assignmentsOf(store: StoreReads, node: string): Promise<Assignment[]> {
  const functions: Assignment[] = []
  for (const { fn, release: id, settings } of await store.assignments({ node })) {
    const release = await store.release(fn, id)
    if (release === undefined) throw new TypeError(`assignment of unknown release ${fn} ${id}`)
    functions.push({
      fn,
      release: id,
      runtime: release.runtime,
      ...(release.entry === undefined ? {} : { entry: release.entry }),
      artifact: { digest: release.digest, bytes: release.bytes },
      settings,
    })
  }
  return functions
}
