import type { Placement, Release, Rollout, RolloutNode } from '#shared/schemas/api.ts'
import type { Envelope, FunctionSettings } from '#shared/schemas/command.ts'
import type { Inventory } from '#shared/schemas/health.ts'
import type { Arch, Labels } from '#shared/schemas/names.ts'

export interface FunctionRow {
  readonly name: string
  readonly createdAtMs: number
  /** Settings of the newest rollout, whatever became of it: what the next one inherits. */
  readonly settings?: FunctionSettings
  readonly placements: readonly Placement[]
}

export interface ArtifactRow {
  readonly digest: string
  readonly bytes: number
  readonly createdAtMs: number
}

export interface NodeRow {
  readonly id: string
  /** Public user nkey; one id for ever belongs to one key. */
  readonly nodeKey: string
  readonly arch: Arch
  readonly labels: Labels
  readonly createdAtMs: number
  /** 0: never. */
  readonly lastSeenMs: number
  readonly inventory?: Inventory
  /** Join token it came with. */
  readonly token?: string
  /** A deleted node's id is never given to another key: its old credentials name that id. */
  readonly deletedAtMs?: number
}

/** The newest command made for a node. Outlives the node, so its generation never falls. */
export interface NodeCommandRow {
  readonly node: string
  readonly generation: number
  readonly stateDigest: string
  readonly envelope: Envelope
  readonly issuedAtMs: number
  readonly expiresAtMs: number
  /** Highest generation the node said it keeps. */
  readonly acceptedGeneration: number
}

export interface AssignmentRow {
  readonly fn: string
  readonly node: string
  readonly release: string
  readonly settings: FunctionSettings
}

/** What a node ran before a rollout, to go back to when the rollout ends before it reached the node. */
export interface Previous {
  readonly release: string
  readonly settings: FunctionSettings
}

export interface RolloutNodeRow extends RolloutNode {
  /** Absent: the node did not have the function. */
  readonly previous?: Previous
  /** First command that carries this rollout's assignment; later ones carry it as well. */
  readonly generation?: number
  /** When the node first said that it cannot; over retries, until it is ready. */
  readonly troubleSinceMs?: number
}

export interface RolloutRow extends Omit<Rollout, 'nodes'> {
  readonly nodes: readonly RolloutNodeRow[]
}

export interface JoinTokenRow {
  readonly id: string
  /** sha256 of the secret, hex. The secret itself is never kept. */
  readonly secretHash: string
  readonly createdAtMs: number
  readonly expiresAtMs: number
  readonly usesLeft: number
}

export interface RolloutFilter {
  readonly fn?: string
  /** Only those that can still change: rolling or waiting. */
  readonly open?: boolean
  /** Newest first; default 200. */
  readonly limit?: number
}

export interface AssignmentFilter {
  readonly fn?: string
  readonly node?: string
}

/** What can be read, always of the last committed state (or, in a transaction, of its own). */
export interface StoreReads {
  functions(): Promise<FunctionRow[]>
  function(name: string): Promise<FunctionRow | undefined>
  /** Newest first. */
  releases(fn: string): Promise<Release[]>
  release(fn: string, id: string): Promise<Release | undefined>
  newestRelease(fn: string): Promise<Release | undefined>
  artifact(digest: string): Promise<ArtifactRow | undefined>
  /** Without the deleted ones. */
  nodes(): Promise<NodeRow[]>
  /** A deleted one, too. */
  node(id: string): Promise<NodeRow | undefined>
  nodeByKey(nodeKey: string): Promise<NodeRow | undefined>
  nodeCommand(node: string): Promise<NodeCommandRow | undefined>
  nodeCommands(): Promise<NodeCommandRow[]>
  assignments(filter?: AssignmentFilter): Promise<AssignmentRow[]>
  rollout(id: string): Promise<RolloutRow | undefined>
  rollouts(filter?: RolloutFilter): Promise<RolloutRow[]>
  joinTokens(): Promise<JoinTokenRow[]>
  setting(key: string): Promise<string | undefined>
}

export interface StoreWrites {
  putFunction(row: FunctionRow): Promise<void>
  /** With its releases, its assignments and its placement. */
  deleteFunction(name: string): Promise<void>
  /** Rises for ever, over a delete of the function too, so a release id never means two things. */
  takeReleaseNumber(fn: string): Promise<number>
  insertRelease(release: Release): Promise<void>
  /** Removes releases older than the newest `keep` that nothing refers to; returns how many. */
  pruneReleases(fn: string, keep: number): Promise<number>
  putArtifact(row: ArtifactRow): Promise<void>
  /** Forgets artifacts that no release names; returns their digests. */
  pruneArtifacts(): Promise<string[]>
  putNode(row: NodeRow): Promise<void>
  putNodeCommand(row: NodeCommandRow): Promise<void>
  putAssignment(row: AssignmentRow): Promise<void>
  /** At least one of the two must be named. */
  deleteAssignments(filter: AssignmentFilter): Promise<void>
  putRollout(row: RolloutRow): Promise<void>
  /** Keeps the newest `keep` rollouts that have ended. */
  pruneRollouts(keep: number): Promise<void>
  putJoinToken(row: JoinTokenRow): Promise<void>
  deleteJoinToken(id: string): Promise<void>
  putSetting(key: string, value: string): Promise<void>
}

export type StoreTransaction = StoreReads & StoreWrites

/**
 * Where the truth is. Asynchronous, so that a database server can stand behind it.
 *
 * Reads outside a transaction see committed state only. Transactions run one after the other; `work` uses only its
 * argument, is short, and is undone as a whole when it throws.
 */
export interface Store extends StoreReads, AsyncDisposable {
  /** @throws TypeError when called inside a transaction, which would wait for itself */
  transaction<T>(work: (tx: StoreTransaction) => Promise<T>): Promise<T>
  close(): Promise<void>
}
