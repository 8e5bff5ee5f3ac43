/** Each entry is applied once, in order, in one transaction. An entry that has been released is never changed. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE functions (
    name TEXT PRIMARY KEY,
    created_at_ms INTEGER NOT NULL,
    settings TEXT,
    placement TEXT
  ) STRICT;

  CREATE TABLE release_numbers (
    fn TEXT PRIMARY KEY,
    last INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE artifacts (
    digest TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE releases (
    fn TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    id TEXT NOT NULL,
    number INTEGER NOT NULL,
    runtime TEXT NOT NULL,
    entry TEXT,
    digest TEXT NOT NULL REFERENCES artifacts (digest),
    arch TEXT NOT NULL,
    source_hash TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (fn, id),
    UNIQUE (fn, number)
  ) STRICT;
  CREATE INDEX releases_by_digest ON releases (digest);

  CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    node_key TEXT NOT NULL UNIQUE,
    arch TEXT NOT NULL,
    labels TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    inventory TEXT,
    token TEXT,
    deleted_at_ms INTEGER
  ) STRICT;

  CREATE TABLE node_commands (
    node TEXT PRIMARY KEY REFERENCES nodes (id),
    generation INTEGER NOT NULL CHECK (generation >= 1),
    state_digest TEXT NOT NULL,
    envelope TEXT NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    accepted_generation INTEGER NOT NULL
  ) STRICT;
  CREATE TRIGGER node_commands_rise BEFORE UPDATE ON node_commands
    WHEN NEW.generation < OLD.generation
    BEGIN SELECT RAISE(ABORT, 'a generation never falls'); END;

  CREATE TABLE assignments (
    fn TEXT NOT NULL,
    node TEXT NOT NULL REFERENCES nodes (id),
    release TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (fn, node),
    FOREIGN KEY (fn, release) REFERENCES releases (fn, id)
  ) STRICT;
  CREATE INDEX assignments_by_node ON assignments (node);
  CREATE INDEX assignments_by_release ON assignments (fn, release);

  CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    fn TEXT NOT NULL,
    release TEXT NOT NULL,
    selector TEXT NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    created_at_ms INTEGER NOT NULL,
    deadline_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    seq INTEGER NOT NULL UNIQUE
  ) STRICT;
  CREATE INDEX rollouts_by_fn ON rollouts (fn, seq);
  CREATE INDEX rollouts_by_state ON rollouts (state, seq);

  CREATE TABLE rollout_nodes (
    rollout TEXT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    node TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    since_ms INTEGER NOT NULL,
    previous TEXT,
    generation INTEGER,
    trouble_since_ms INTEGER,
    PRIMARY KEY (rollout, node)
  ) STRICT;

  CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    uses_left INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
  ) STRICT;
  `,
  // A function is where several rollouts put it, not only the last one.
  `
  ALTER TABLE functions ADD COLUMN placements TEXT NOT NULL DEFAULT '[]';
  UPDATE functions SET placements = json_array(json(placement)) WHERE placement IS NOT NULL;
  ALTER TABLE functions DROP COLUMN placement;
  `,
]
