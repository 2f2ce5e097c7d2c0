"""The SQLite schema of identity: STRICT tables, and its invariants as constraints.

Held here, whatever the code above does: one certificate per approval or rotation; a device has one
current and one pending certificate at most; a revoked certificate stays revoked, and is forgotten
only after its own end; a revoked device has no certificate that is good, and is un-revoked only by
being removed; a retired authority stays retired; events are only ever added to. `body` is the
record as JSON; the other columns repeat what constraints need. Secrets are sealed boxes.
"""

from palyra_fleet.store.sqlite_connection import DatabaseDesign
from palyra_fleet.store.state_directory import StateFiles

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE devices (
  device_id TEXT PRIMARY KEY CHECK (length(device_id) = 26),
  revoked INTEGER NOT NULL CHECK (revoked IN (0, 1)),
  body TEXT NOT NULL
) STRICT;

CREATE TABLE certificates (
  fingerprint TEXT PRIMARY KEY CHECK (length(fingerprint) = 64),
  device_id TEXT NOT NULL,
  origin TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK (state IN ('pending', 'current', 'retiring', 'revoked')),
  issued_at_unix_ms INTEGER NOT NULL,
  not_after_unix_ms INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX certificates_of_device ON certificates (device_id);
CREATE UNIQUE INDEX one_current_certificate ON certificates (device_id) WHERE state = 'current';
CREATE UNIQUE INDEX one_pending_certificate ON certificates (device_id) WHERE state = 'pending';

CREATE TABLE authorities (
  authority_id TEXT PRIMARY KEY,
  created_at_unix_ms INTEGER NOT NULL,
  retired_at_unix_ms INTEGER,
  certificate_der BLOB NOT NULL,
  sealed_key BLOB NOT NULL,
  CHECK (retired_at_unix_ms IS NULL OR length(sealed_key) = 0)
) STRICT;

CREATE TABLE sealed (name TEXT PRIMARY KEY, box BLOB NOT NULL) STRICT;

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

CREATE TRIGGER revoked_certificates_stay_revoked BEFORE UPDATE ON certificates
WHEN OLD.state = 'revoked' AND NEW.state <> 'revoked'
BEGIN SELECT RAISE(ABORT, 'a revoked certificate stays revoked'); END;

CREATE TRIGGER certificates_keep_their_device BEFORE UPDATE ON certificates
WHEN NEW.device_id <> OLD.device_id OR NEW.origin <> OLD.origin
BEGIN SELECT RAISE(ABORT, 'a certificate belongs to one device and one origin'); END;

CREATE TRIGGER certificates_are_remembered BEFORE DELETE ON certificates
WHEN OLD.not_after_unix_ms >=
  (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'high_water_unix_ms')
BEGIN SELECT RAISE(ABORT, 'a certificate is remembered until it has ended'); END;

CREATE TRIGGER good_certificate_needs_good_device BEFORE INSERT ON certificates
WHEN NEW.state <> 'revoked' AND NOT EXISTS (
  SELECT 1 FROM devices WHERE device_id = NEW.device_id AND revoked = 0)
BEGIN SELECT RAISE(ABORT, 'a good certificate needs a paired device'); END;

CREATE TRIGGER revoked_devices_hold_no_certificate BEFORE UPDATE ON devices
WHEN NEW.revoked = 1 AND EXISTS (
  SELECT 1 FROM certificates WHERE device_id = NEW.device_id AND state <> 'revoked')
BEGIN SELECT RAISE(ABORT, 'a revoked device holds no good certificate'); END;

CREATE TRIGGER revoked_devices_stay_revoked BEFORE UPDATE ON devices
WHEN OLD.revoked = 1 AND NEW.revoked = 0
BEGIN SELECT RAISE(ABORT, 'a revoked device is removed before it pairs again'); END;

CREATE TRIGGER removed_devices_hold_no_certificate BEFORE DELETE ON devices
WHEN EXISTS (
  SELECT 1 FROM certificates WHERE device_id = OLD.device_id AND state <> 'revoked')
BEGIN SELECT RAISE(ABORT, 'a removed device holds no good certificate'); END;

CREATE TRIGGER retired_authorities_stay_retired BEFORE UPDATE ON authorities
WHEN OLD.retired_at_unix_ms IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a retired authority stays retired'); END;
CREATE TRIGGER authorities_are_kept BEFORE DELETE ON authorities
BEGIN SELECT RAISE(ABORT, 'authorities are only retired'); END;

CREATE TRIGGER events_are_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
"""

IDENTITY_FILES = StateFiles(
    "identity.sqlite3", "identity.lock", "identity.marker", "every pairing and every revocation"
)
IDENTITY_DATABASE = DatabaseDesign(IDENTITY_FILES, SCHEMA, SCHEMA_VERSION)
