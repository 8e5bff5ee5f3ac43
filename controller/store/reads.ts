import type { Release, RolloutNodeState, RolloutState } from '#shared/schemas/api.ts'
import { RUNTIMES } from '#shared/schemas/names.ts'
import type {
  ArtifactRow,
  AssignmentFilter,
  AssignmentRow,
  FunctionRow,
  JoinTokenRow,
  NodeCommandRow,
  NodeRow,
  RolloutFilter,
  RolloutNodeRow,
  RolloutRow,
  StoreReads,
} from './model.ts'
import { integer, json, optional, text, word, type Row, type Statements } from './statements.ts'

const ROLLOUTS_LIMIT = 200
const ROLLOUT_STATES = [
  'rolling',
  'waiting',
  'done',
  'failed',
  'aborted',
  'timed-out',
] as const satisfies readonly RolloutState[]
const NODE_STATES = [
  'pending',
  'sent',
  'applying',
  'ready',
  'failed',
  'refused',
  'offline',
] as const satisfies readonly RolloutNodeState[]
const RELEASE = `SELECT r.*, a.bytes FROM releases r JOIN artifacts a ON a.digest = r.digest`

/** All reads, over any connection. */
export class SqliteReads implements StoreReads {
  protected readonly sql: Statements

  constructor(sql: Statements) {
    this.sql = sql
  }

  async functions(): Promise<FunctionRow[]> {
    return this.sql.all('SELECT * FROM functions ORDER BY name', [], readFunction)
  }

  async function(name: string): Promise<FunctionRow | undefined> {
    return this.sql.get('SELECT * FROM functions WHERE name = ?', [name], readFunction)
  }

  async releases(fn: string): Promise<Release[]> {
    return this.sql.all(`${RELEASE} WHERE r.fn = ? ORDER BY r.number DESC`, [fn], readRelease)
  }

  async release(fn: string, id: string): Promise<Release | undefined> {
    return this.sql.get(`${RELEASE} WHERE r.fn = ? AND r.id = ?`, [fn, id], readRelease)
  }

  async newestRelease(fn: string): Promise<Release | undefined> {
    const sql = `${RELEASE} WHERE r.fn = ? ORDER BY r.number DESC LIMIT 1`
    return this.sql.get(sql, [fn], readRelease)
  }

  async artifact(digest: string): Promise<ArtifactRow | undefined> {
    return this.sql.get('SELECT * FROM artifacts WHERE digest = ?', [digest], readArtifact)
  }

  async nodes(): Promise<NodeRow[]> {
    return this.sql.all('SELECT * FROM nodes WHERE deleted_at_ms IS NULL ORDER BY id', [], readNode)
  }

  async node(id: string): Promise<NodeRow | undefined> {
    return this.sql.get('SELECT * FROM nodes WHERE id = ?', [id], readNode)
  }

  async nodeByKey(nodeKey: string): Promise<NodeRow | undefined> {
    return this.sql.get('SELECT * FROM nodes WHERE node_key = ?', [nodeKey], readNode)
  }

  async nodeCommand(node: string): Promise<NodeCommandRow | undefined> {
    return this.sql.get('SELECT * FROM node_commands WHERE node = ?', [node], readNodeCommand)
  }

  async nodeCommands(): Promise<NodeCommandRow[]> {
    return this.sql.all('SELECT * FROM node_commands ORDER BY node', [], readNodeCommand)
  }

  async assignments({ fn, node }: AssignmentFilter = {}): Promise<AssignmentRow[]> {
    return this.sql.all(
      `SELECT * FROM assignments WHERE (?1 IS NULL OR fn = ?1) AND (?2 IS NULL OR node = ?2)
       ORDER BY fn, node`,
      [fn ?? null, node ?? null],
      readAssignment,
    )
  }

  async rollout(id: string): Promise<RolloutRow | undefined> {
    return this.sql.get('SELECT * FROM rollouts WHERE id = ?', [id], (row) => this.#rollout(row))
  }

  async rollouts({ fn, open, limit }: RolloutFilter = {}): Promise<RolloutRow[]> {
    return this.sql.all(
      `SELECT * FROM rollouts
       WHERE (?1 IS NULL OR fn = ?1) AND (?2 = 0 OR state IN ('rolling', 'waiting'))
       ORDER BY seq DESC LIMIT ?3`,
      [fn ?? null, open === true ? 1 : 0, limit ?? ROLLOUTS_LIMIT],
      (row) => this.#rollout(row),
    )
  }

  async joinTokens(): Promise<JoinTokenRow[]> {
    return this.sql.all('SELECT * FROM join_tokens ORDER BY created_at_ms', [], readJoinToken)
  }

  async setting(key: string): Promise<string | undefined> {
    return this.sql.get('SELECT value FROM settings WHERE key = ?', [key], (row) =>
      text(row, 'value'),
    )
  }

  #rollout(row: Row): RolloutRow {
    const id = text(row, 'id')
    return {
      id,
      function: text(row, 'fn'),
      release: text(row, 'release'),
      selector: text(row, 'selector'),
      settings: json(row, 'settings'),
      state: word(row, 'state', ROLLOUT_STATES),
      ...optional(row, 'reason', 'reason', text),
      createdAtMs: integer(row, 'created_at_ms'),
      deadlineAtMs: integer(row, 'deadline_at_ms'),
      ...optional(row, 'ended_at_ms', 'endedAtMs', integer),
      nodes: this.sql.all(
        'SELECT * FROM rollout_nodes WHERE rollout = ? ORDER BY node',
        [id],
        readRolloutNode,
      ),
    }
  }
}

function readFunction(row: Row): FunctionRow {
  return {
    name: text(row, 'name'),
    createdAtMs: integer(row, 'created_at_ms'),
    ...optional(row, 'settings', 'settings', json),
    placements: json(row, 'placements'),
  }
}

function readRelease(row: Row): Release {
  return {
    id: text(row, 'id'),
    function: text(row, 'fn'),
    number: integer(row, 'number'),
    runtime: word(row, 'runtime', RUNTIMES),
    ...optional(row, 'entry', 'entry', text),
    digest: text(row, 'digest'),
    bytes: integer(row, 'bytes'),
    arch: word(row, 'arch', ['amd64', 'arm64', 'any']),
    sourceHash: text(row, 'source_hash'),
    createdAtMs: integer(row, 'created_at_ms'),
  }
}

function readArtifact(row: Row): ArtifactRow {
  return {
    digest: text(row, 'digest'),
    bytes: integer(row, 'bytes'),
    createdAtMs: integer(row, 'created_at_ms'),
  }
}

function readNode(row: Row): NodeRow {
  return {
    id: text(row, 'id'),
    nodeKey: text(row, 'node_key'),
    arch: word(row, 'arch', ['amd64', 'arm64']),
    labels: json(row, 'labels'),
    createdAtMs: integer(row, 'created_at_ms'),
    lastSeenMs: integer(row, 'last_seen_ms'),
    ...optional(row, 'inventory', 'inventory', json),
    ...optional(row, 'token', 'token', text),
    ...optional(row, 'deleted_at_ms', 'deletedAtMs', integer),
  }
}

function readNodeCommand(row: Row): NodeCommandRow {
  return {
    node: text(row, 'node'),
    generation: integer(row, 'generation'),
    stateDigest: text(row, 'state_digest'),
    envelope: json(row, 'envelope'),
    issuedAtMs: integer(row, 'issued_at_ms'),
    expiresAtMs: integer(row, 'expires_at_ms'),
    acceptedGeneration: integer(row, 'accepted_generation'),
  }
}

function readAssignment(row: Row): AssignmentRow {
  return {
    fn: text(row, 'fn'),
    node: text(row, 'node'),
    release: text(row, 'release'),
    settings: json(row, 'settings'),
  }
}

function readRolloutNode(row: Row): RolloutNodeRow {
  return {
    node: text(row, 'node'),
    state: word(row, 'state', NODE_STATES),
    ...optional(row, 'reason', 'reason', json),
    sinceMs: integer(row, 'since_ms'),
    ...optional(row, 'previous', 'previous', json),
    ...optional(row, 'generation', 'generation', integer),
    ...optional(row, 'trouble_since_ms', 'troubleSinceMs', integer),
  }
}

function readJoinToken(row: Row): JoinTokenRow {
  return {
    id: text(row, 'id'),
    secretHash: text(row, 'secret_hash'),
    createdAtMs: integer(row, 'created_at_ms'),
    expiresAtMs: integer(row, 'expires_at_ms'),
    usesLeft: integer(row, 'uses_left'),
  }
}
