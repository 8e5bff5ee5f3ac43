import type { Release } from '#shared/schemas/api.ts'
import type {
  ArtifactRow,
  AssignmentFilter,
  AssignmentRow,
  FunctionRow,
  JoinTokenRow,
  NodeCommandRow,
  NodeRow,
  RolloutRow,
  StoreTransaction,
} from './model.ts'
import { SqliteReads } from './reads.ts'
import { integer, text } from './statements.ts'

/** Reads and writes on the writing connection, inside a transaction. */
export class SqliteTransaction extends SqliteReads implements StoreTransaction {
  async putFunction({ name, createdAtMs, settings, placements }: FunctionRow): Promise<void> {
    this.sql.run(
      `INSERT INTO functions (name, created_at_ms, settings, placements) VALUES (?, ?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, placements = excluded.placements`,
      [name, createdAtMs, jsonOrNull(settings), JSON.stringify(placements)],
    )
  }

  async deleteFunction(name: string): Promise<void> {
    this.sql.run('DELETE FROM assignments WHERE fn = ?', [name])
    this.sql.run('DELETE FROM functions WHERE name = ?', [name])
  }

  async takeReleaseNumber(fn: string): Promise<number> {
    const taken = this.sql.get(
      `INSERT INTO release_numbers (fn, last) VALUES (?, 1)
       ON CONFLICT (fn) DO UPDATE SET last = last + 1 RETURNING last`,
      [fn],
      (row) => integer(row, 'last'),
    )
    if (taken === undefined) throw new TypeError('RETURNING returned nothing')
    return taken
  }

  async insertRelease(release: Release): Promise<void> {
    this.sql.run(
      `INSERT INTO releases (fn, id, number, runtime, entry, digest, arch, source_hash, created_at_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      [
        release.function,
        release.id,
        release.number,
        release.runtime,
        release.entry ?? null,
        release.digest,
        release.arch,
        release.sourceHash,
        release.createdAtMs,
      ],
    )
  }

  async pruneReleases(fn: string, keep: number): Promise<number> {
    return this.sql.run(
      `DELETE FROM releases WHERE fn = ?1
         AND id NOT IN (SELECT id FROM releases WHERE fn = ?1 ORDER BY number DESC LIMIT ?2)
         AND id NOT IN (SELECT release FROM assignments WHERE fn = ?1)
         AND id NOT IN (SELECT release FROM rollouts WHERE fn = ?1 AND state IN ('rolling', 'waiting'))
         AND id NOT IN (SELECT COALESCE(json_extract(n.previous, '$.release'), '') FROM rollout_nodes n
                        JOIN rollouts o ON o.id = n.rollout WHERE o.fn = ?1 AND o.state IN ('rolling', 'waiting'))
         AND id NOT IN (SELECT json_extract(p.value, '$.release') FROM functions f, json_each(f.placements) p WHERE f.name = ?1)`,
      [fn, keep],
    )
  }

  async putArtifact({ digest, bytes, createdAtMs }: ArtifactRow): Promise<void> {
    this.sql.run(
      `INSERT INTO artifacts (digest, bytes, created_at_ms) VALUES (?, ?, ?)
       ON CONFLICT (digest) DO NOTHING`,
      [digest, bytes, createdAtMs],
    )
  }

  async pruneArtifacts(): Promise<string[]> {
    return this.sql.all(
      'DELETE FROM artifacts WHERE digest NOT IN (SELECT digest FROM releases) RETURNING digest',
      [],
      (row) => text(row, 'digest'),
    )
  }

  async putNode(row: NodeRow): Promise<void> {
    this.sql.run(
      `INSERT INTO nodes (id, node_key, arch, labels, created_at_ms, last_seen_ms, inventory, token, deleted_at_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET node_key = excluded.node_key, arch = excluded.arch,
         labels = excluded.labels, last_seen_ms = excluded.last_seen_ms, inventory = excluded.inventory,
         token = excluded.token, deleted_at_ms = excluded.deleted_at_ms`,
      [
        row.id,
        row.nodeKey,
        row.arch,
        JSON.stringify(row.labels),
        row.createdAtMs,
        row.lastSeenMs,
        jsonOrNull(row.inventory),
        row.token ?? null,
        row.deletedAtMs ?? null,
      ],
    )
  }

  async putNodeCommand(row: NodeCommandRow): Promise<void> {
    this.sql.run(
      `INSERT INTO node_commands
         (node, generation, state_digest, envelope, issued_at_ms, expires_at_ms, accepted_generation)
       VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (node) DO UPDATE SET generation = excluded.generation,
         state_digest = excluded.state_digest, envelope = excluded.envelope,
         issued_at_ms = excluded.issued_at_ms, expires_at_ms = excluded.expires_at_ms,
         accepted_generation = excluded.accepted_generation`,
      [
        row.node,
        row.generation,
        row.stateDigest,
        JSON.stringify(row.envelope),
        row.issuedAtMs,
        row.expiresAtMs,
        row.acceptedGeneration,
      ],
    )
  }

  async putAssignment({ fn, node, release, settings }: AssignmentRow): Promise<void> {
    this.sql.run(
      `INSERT INTO assignments (fn, node, release, settings) VALUES (?, ?, ?, ?)
       ON CONFLICT (fn, node) DO UPDATE SET release = excluded.release, settings = excluded.settings`,
      [fn, node, release, JSON.stringify(settings)],
    )
  }

  async deleteAssignments({ fn, node }: AssignmentFilter): Promise<void> {
    if (fn === undefined && node === undefined) {
      throw new TypeError('deleteAssignments wants a function or a node')
    }
    this.sql.run(
      'DELETE FROM assignments WHERE (?1 IS NULL OR fn = ?1) AND (?2 IS NULL OR node = ?2)',
      [fn ?? null, node ?? null],
    )
  }

  async putRollout(row: RolloutRow): Promise<void> {
    this.sql.run(
      `INSERT INTO rollouts
         (id, fn, release, selector, settings, state, reason, created_at_ms, deadline_at_ms, ended_at_ms, seq)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(seq), 0) + 1 FROM rollouts))
       ON CONFLICT (id) DO UPDATE SET state = excluded.state, reason = excluded.reason,
         ended_at_ms = excluded.ended_at_ms`,
      [
        row.id,
        row.function,
        row.release,
        row.selector,
        JSON.stringify(row.settings),
        row.state,
        row.reason ?? null,
        row.createdAtMs,
        row.deadlineAtMs,
        row.endedAtMs ?? null,
      ],
    )
    this.sql.run('DELETE FROM rollout_nodes WHERE rollout = ?', [row.id])
    for (const node of row.nodes) {
      this.sql.run(
        `INSERT INTO rollout_nodes
           (rollout, node, state, reason, since_ms, previous, generation, trouble_since_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
        [
          row.id,
          node.node,
          node.state,
          jsonOrNull(node.reason),
          node.sinceMs,
          jsonOrNull(node.previous),
          node.generation ?? null,
          node.troubleSinceMs ?? null,
        ],
      )
    }
  }

  async pruneRollouts(keep: number): Promise<void> {
    this.sql.run(
      `DELETE FROM rollouts WHERE state NOT IN ('rolling', 'waiting')
         AND seq NOT IN (SELECT seq FROM rollouts ORDER BY seq DESC LIMIT ?)`,
      [keep],
    )
  }

  async putJoinToken(row: JoinTokenRow): Promise<void> {
    this.sql.run(
      `INSERT INTO join_tokens (id, secret_hash, created_at_ms, expires_at_ms, uses_left)
       VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET uses_left = excluded.uses_left`,
      [row.id, row.secretHash, row.createdAtMs, row.expiresAtMs, row.usesLeft],
    )
  }

  async deleteJoinToken(id: string): Promise<void> {
    this.sql.run('DELETE FROM join_tokens WHERE id = ?', [id])
  }

  async putSetting(key: string, value: string): Promise<void> {
    this.sql.run(
      `INSERT INTO settings (key, value) VALUES (?, ?)
       ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
      [key, value],
    )
  }
}

function jsonOrNull(value: unknown): string | null {
  return value === undefined ? null : JSON.stringify(value)
}
