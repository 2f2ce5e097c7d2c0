"""The SQLite schema: STRICT tables, and the fleet's invariants as constraints.

Held here, whatever the code above does: one live lease per worker and per run; a fence is unique
and above every earlier one; a grant is spent at most `max_uses` times; the quarantined and the
banned hold no live lease; events, evidence and tombstones are only ever added to. `body` is the
record as JSON; the other columns repeat what constraints and queries need.

`SCHEMA` is that of the first release and stays as it is; what changed since is in
`FLEET_MIGRATIONS`, one script for each version, and only ever added to.
"""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE workers (
  worker_id TEXT PRIMARY KEY,
  evidence_identity TEXT NOT NULL UNIQUE,
  key_sha256 TEXT NOT NULL UNIQUE,
  admission TEXT NOT NULL CHECK (admission IN ('active', 'quarantined', 'banned')),
  body TEXT NOT NULL
) STRICT;

CREATE TABLE grants (
  grant_id TEXT PRIMARY KEY,
  run_id TEXT NOT NULL,
  expires_at_unix_ms INTEGER NOT NULL,
  uses INTEGER NOT NULL CHECK (uses >= 0),
  max_uses INTEGER NOT NULL CHECK (max_uses >= 1),
  withdrawn INTEGER NOT NULL CHECK (withdrawn IN (0, 1)),
  body TEXT NOT NULL,
  CHECK (uses <= max_uses)
) STRICT;
CREATE INDEX grants_open ON grants (expires_at_unix_ms) WHERE withdrawn = 0 AND uses < max_uses;

CREATE TABLE leases (
  lease_id TEXT PRIMARY KEY,
  fence INTEGER NOT NULL UNIQUE CHECK (fence >= 1),
  worker_id TEXT NOT NULL,
  run_id TEXT NOT NULL,
  grant_id TEXT NOT NULL REFERENCES grants (grant_id),
  live INTEGER NOT NULL CHECK (live IN (0, 1)),
  body TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_live_lease_per_worker ON leases (worker_id) WHERE live = 1;
CREATE UNIQUE INDEX one_live_lease_per_run ON leases (run_id) WHERE live = 1;

CREATE TABLE tombstones (
  kind TEXT NOT NULL CHECK (kind IN ('worker', 'key', 'identity')),
  value TEXT NOT NULL,
  PRIMARY KEY (kind, value)
) STRICT;

CREATE TABLE enrolled (
  kind TEXT NOT NULL CHECK (kind IN ('launcher', 'proxy')),
  name TEXT NOT NULL,
  public_key BLOB NOT NULL UNIQUE CHECK (length(public_key) = 32),
  seq INTEGER NOT NULL CHECK (seq >= 0),
  last_sha256 TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT;

CREATE TABLE reference_values (
  digest_field TEXT NOT NULL CHECK (digest_field IN ('image', 'build', 'artifact')),
  digest_sha256 TEXT NOT NULL CHECK (length(digest_sha256) = 64),
  PRIMARY KEY (digest_field, digest_sha256)
) STRICT;

CREATE TABLE evidence (
  evidence_sha256 TEXT PRIMARY KEY,
  proxy_id TEXT NOT NULL,
  seq INTEGER NOT NULL CHECK (seq >= 1),
  worker_id TEXT NOT NULL,
  received_at_unix_ms INTEGER NOT NULL,
  at_unix_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL
    CHECK (outcome IN ('quarantined', 'already_quarantined', 'struck', 'recorded')),
  payload BLOB NOT NULL,
  UNIQUE (proxy_id, seq)
) STRICT;
CREATE INDEX evidence_of_worker ON evidence (worker_id, at_unix_ms);

CREATE TABLE events (
  seq INTEGER PRIMARY KEY CHECK (seq >= 1),
  at_unix_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  actor TEXT NOT NULL,
  worker_id TEXT,
  lease_id TEXT,
  detail TEXT NOT NULL,
  previous_sha256 TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL UNIQUE
) STRICT;

CREATE TRIGGER fences_grow BEFORE INSERT ON leases
WHEN NEW.fence <= (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'highest_fence')
BEGIN SELECT RAISE(ABORT, 'fences must grow'); END;

CREATE TRIGGER live_lease_needs_active_worker BEFORE INSERT ON leases
WHEN NEW.live = 1 AND NOT EXISTS (
  SELECT 1 FROM workers WHERE worker_id = NEW.worker_id AND admission = 'active')
BEGIN SELECT RAISE(ABORT, 'a live lease needs an active worker'); END;

CREATE TRIGGER ended_leases_stay_ended BEFORE UPDATE ON leases
WHEN OLD.live = 0 OR NEW.fence <> OLD.fence OR NEW.worker_id <> OLD.worker_id
BEGIN SELECT RAISE(ABORT, 'an ended lease stays as it is'); END;

CREATE TRIGGER confined_workers_hold_no_lease BEFORE UPDATE ON workers
WHEN NEW.admission <> 'active' AND EXISTS (
  SELECT 1 FROM leases WHERE worker_id = NEW.worker_id AND live = 1)
BEGIN SELECT RAISE(ABORT, 'a confined worker holds no live lease'); END;

CREATE TRIGGER banned_workers_stay_banned BEFORE UPDATE ON workers
WHEN OLD.admission = 'banned' AND NEW.admission <> 'banned'
BEGIN SELECT RAISE(ABORT, 'a ban is final'); END;

CREATE TRIGGER only_free_workers_are_forgotten BEFORE DELETE ON workers
WHEN OLD.admission <> 'active' OR EXISTS (
  SELECT 1 FROM leases WHERE worker_id = OLD.worker_id AND live = 1)
BEGIN SELECT RAISE(ABORT, 'a confined or leased worker is not forgotten'); END;

CREATE TRIGGER events_are_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER evidence_is_kept BEFORE DELETE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is only added'); END;
CREATE TRIGGER evidence_is_final BEFORE UPDATE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is only added'); END;
CREATE TRIGGER tombstones_are_kept BEFORE DELETE ON tombstones
BEGIN SELECT RAISE(ABORT, 'tombstones are only added'); END;
"""

_RETENTION = """
INSERT INTO meta (key, value) VALUES ('chain_base_seq', '0');
INSERT INTO meta (key, value)
  VALUES ('chain_base_sha256', '0000000000000000000000000000000000000000000000000000000000000000');

DROP TRIGGER events_are_kept;
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
WHEN OLD.seq > (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'chain_base_seq')
BEGIN SELECT RAISE(ABORT, 'events are only added, and archived from the oldest on'); END;

CREATE TRIGGER the_base_of_the_log_only_rises BEFORE UPDATE ON meta
WHEN NEW.key = 'chain_base_seq' AND CAST(NEW.value AS INTEGER) < CAST(OLD.value AS INTEGER)
BEGIN SELECT RAISE(ABORT, 'archived events do not come back'); END;

CREATE TRIGGER only_ended_leases_are_forgotten BEFORE DELETE ON leases
WHEN OLD.live = 1
BEGIN SELECT RAISE(ABORT, 'a live lease is not forgotten'); END;

CREATE TRIGGER only_used_up_grants_are_forgotten BEFORE DELETE ON grants
WHEN OLD.withdrawn = 0 AND OLD.uses < OLD.max_uses AND OLD.expires_at_unix_ms >
  (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'high_water_unix_ms')
BEGIN SELECT RAISE(ABORT, 'a usable grant is not forgotten'); END;

ALTER TABLE leases ADD COLUMN ended_at_unix_ms INTEGER;
DROP TRIGGER ended_leases_stay_ended;
UPDATE leases SET ended_at_unix_ms = json_extract(body, '$[0].ended_at_unix_ms') WHERE live = 0;
CREATE TRIGGER ended_leases_stay_ended BEFORE UPDATE ON leases
WHEN OLD.live = 0 OR NEW.fence <> OLD.fence OR NEW.worker_id <> OLD.worker_id
BEGIN SELECT RAISE(ABORT, 'an ended lease stays as it is'); END;

CREATE INDEX ended_leases ON leases (ended_at_unix_ms) WHERE live = 0;
CREATE INDEX leases_of_grant ON leases (grant_id);
CREATE INDEX grants_by_end ON grants (expires_at_unix_ms);
"""

_ENROLMENTS = """
ALTER TABLE enrolled ADD COLUMN device_id TEXT;
ALTER TABLE enrolled ADD COLUMN revoked_at_unix_ms INTEGER;
CREATE TRIGGER enrolments_are_kept BEFORE DELETE ON enrolled
BEGIN SELECT RAISE(ABORT, 'what was enrolled is kept, also when it is taken back'); END;
CREATE TRIGGER what_was_taken_back_stays_so BEFORE UPDATE ON enrolled
WHEN OLD.revoked_at_unix_ms IS NOT NULL AND (NEW.revoked_at_unix_ms IS NULL OR NEW.seq <> OLD.seq)
BEGIN SELECT RAISE(ABORT, 'an enrolment that was taken back does not come again'); END;
"""

_EVENTS_OF_WORKER = """
CREATE INDEX events_of_worker ON events (worker_id, seq) WHERE worker_id IS NOT NULL;
"""

_LEASE_FREEZE = """
CREATE TABLE lease_freeze (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  frozen INTEGER NOT NULL CHECK (frozen IN (0, 1)),
  at_unix_ms INTEGER NOT NULL
) STRICT;
"""

_FLEET_FREEZE = """
ALTER TABLE lease_freeze RENAME TO fleet_freeze;
ALTER TABLE fleet_freeze ADD COLUMN egress INTEGER NOT NULL DEFAULT 0
  CHECK (egress IN (0, 1) AND egress <= frozen);
ALTER TABLE fleet_freeze ADD COLUMN by_principal TEXT;
"""

FLEET_MIGRATIONS = (_RETENTION, _ENROLMENTS, _EVENTS_OF_WORKER, _LEASE_FREEZE, _FLEET_FREEZE)
"""1 to 2: finished records can be forgotten and old events archived. 2 to 3: enrolments belong to a
device, and can be taken back. 3 to 4: what happened to one worker is found without reading it
all. 4 to 5: a storm freezes new leases until an operator looks. 5 to 6: an operator freezes new
leases, and egress with them."""
