"""Rows of the SQLite store as records, and records as statements. No transaction handling here.

A lease is updated where it exists and inserted where not (an upsert would fire the insert triggers
on every update). Grants are written before leases and leases before workers, so that the triggers
see a lease end before its worker is confined.
"""

import json
import sqlite3
from typing import assert_never

from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import (
    EnrolledKey,
    EvictedWorker,
    EvidenceRecord,
    FleetFreeze,
    Record,
    ReferenceValue,
    Tombstone,
    TombstoneKind,
    WithdrawnReference,
)
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.ledger.rule_counts import HOUR_MS
from palyra_fleet.store import codec
from palyra_fleet.store.event_chain import canonical
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreConflict
from palyra_fleet.wire.ids import first_id_of
from palyra_fleet.wire.models import EventView

type EventRow = tuple[int, int, str, str, str | None, str | None, str, str, str]

EVENT_COLUMNS = (
    "seq, at_unix_ms, reason, actor, worker_id, lease_id, detail, previous_sha256, sha256"
)
EVIDENCE_COLUMNS = (
    "evidence_sha256, proxy_id, seq, worker_id, received_at_unix_ms, at_unix_ms, outcome, payload"
)


def event_of(row: EventRow) -> EventView:
    """Raises ChainBroken for what this module never wrote."""
    try:
        return EventView(
            seq=row[0],
            at_unix_ms=row[1],
            reason=row[2],
            actor=row[3],
            worker_id=row[4],
            lease_id=row[5],
            detail=json.loads(row[6]),
            previous_sha256=row[7],
            sha256=row[8],
        )
    except (ValueError, RecursionError):
        raise ChainBroken(f"event {row[0]} is not one") from None


def write_event(connection: sqlite3.Connection, entry: EventView) -> None:
    connection.execute(
        f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 (a constant of this module)
        (
            entry.seq,
            entry.at_unix_ms,
            entry.reason,
            entry.actor,
            entry.worker_id,
            entry.lease_id,
            canonical(entry.detail),
            entry.previous_sha256,
            entry.sha256,
        ),
    )


def _rank(record: Record) -> int:
    match record:
        case WorkerApprovalGrant():
            return 0
        case WorkerLease():
            return 1
        case WorkerRecord() | EvictedWorker():
            return 2
        case (
            Tombstone()
            | EnrolledKey()
            | ReferenceValue()
            | WithdrawnReference()
            | FleetFreeze()
            | EvidenceRecord()
        ):
            return 3
        case _:
            assert_never(record)


def write_records(connection: sqlite3.Connection, records: tuple[Record, ...]) -> None:
    for record in sorted(records, key=_rank):
        _write(connection, record)


def _write(connection: sqlite3.Connection, record: Record) -> None:
    match record:
        case WorkerRecord():
            _write_worker(connection, record)
        case EvictedWorker(worker_id):
            connection.execute("DELETE FROM workers WHERE worker_id = ?", (worker_id,))
        case WorkerLease():
            _write_lease(connection, record)
        case WorkerApprovalGrant():
            _write_grant(connection, record)
        case Tombstone(kind, value):
            connection.execute(
                "INSERT OR IGNORE INTO tombstones VALUES (?, ?)", (kind.value, value)
            )
        case EnrolledKey():
            _write_enrolled(connection, record)
        case ReferenceValue(digest_field, digest):
            connection.execute(
                "INSERT OR IGNORE INTO reference_values VALUES (?, ?)", (digest_field, digest)
            )
        case WithdrawnReference(digest_field, digest):
            connection.execute(
                "DELETE FROM reference_values WHERE digest_field = ? AND digest_sha256 = ?",
                (digest_field, digest),
            )
        case FleetFreeze(frozen, at_unix_ms, egress, by):
            connection.execute(
                "INSERT INTO fleet_freeze VALUES (1, ?, ?, ?, ?) ON CONFLICT (one) DO UPDATE SET"
                " frozen = excluded.frozen, at_unix_ms = excluded.at_unix_ms,"
                " egress = excluded.egress, by_principal = excluded.by_principal",
                (int(frozen), at_unix_ms, int(egress), by),
            )
        case EvidenceRecord():
            _write_evidence(connection, record)
        case _:
            assert_never(record)


def _write_worker(connection: sqlite3.Connection, worker: WorkerRecord) -> None:
    values = {
        "id": worker.worker_id,
        "identity": worker.evidence_identity,
        "key": worker.proof.key_sha256,
        "admission": worker.admission.value,
        "body": codec.worker_body(worker),
    }
    updated = connection.execute(
        "UPDATE workers SET evidence_identity = :identity, key_sha256 = :key,"
        " admission = :admission, body = :body WHERE worker_id = :id",
        values,
    )
    if updated.rowcount == 0:
        connection.execute(
            "INSERT INTO workers VALUES (:id, :identity, :key, :admission, :body)", values
        )


def _write_lease(connection: sqlite3.Connection, lease: WorkerLease) -> None:
    live = int(lease.status.live)
    body = codec.lease_body(lease)
    updated = connection.execute(
        "UPDATE leases SET live = ?, fence = ?, worker_id = ?, body = ?, ended_at_unix_ms = ?"
        " WHERE lease_id = ?",
        (live, lease.fence, lease.worker_id, body, lease.ended_at_unix_ms, lease.lease_id),
    )
    if updated.rowcount == 0:
        connection.execute(
            "INSERT INTO leases (lease_id, fence, worker_id, run_id, grant_id, live, body,"
            " ended_at_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                lease.lease_id,
                lease.fence,
                lease.worker_id,
                lease.run_id,
                lease.grant_id,
                live,
                body,
                lease.ended_at_unix_ms,
            ),
        )


def _write_grant(connection: sqlite3.Connection, grant: WorkerApprovalGrant) -> None:
    connection.execute(
        "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (grant_id) DO UPDATE SET"
        " uses = excluded.uses, withdrawn = excluded.withdrawn, body = excluded.body",
        (
            grant.grant_id,
            grant.run_id,
            grant.expires_at_unix_ms,
            grant.uses,
            grant.max_uses,
            int(grant.withdrawn),
            codec.grant_body(grant),
        ),
    )


def _write_enrolled(connection: sqlite3.Connection, key: EnrolledKey) -> None:
    written = connection.execute(
        "INSERT INTO enrolled (kind, name, public_key, seq, last_sha256, device_id,"
        " revoked_at_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET"
        " seq = excluded.seq, last_sha256 = excluded.last_sha256,"
        " revoked_at_unix_ms = coalesce(revoked_at_unix_ms, excluded.revoked_at_unix_ms)"
        " WHERE public_key = excluded.public_key AND device_id IS excluded.device_id"
        " AND excluded.seq >= seq",
        (
            key.kind,
            key.name,
            key.public_key,
            key.seq,
            key.last_sha256,
            key.device_id,
            key.revoked_at_unix_ms,
        ),
    )
    if written.rowcount == 0:
        raise StoreConflict(f"{key.kind} '{key.name}' is enrolled with another key")


def _write_evidence(connection: sqlite3.Connection, evidence: EvidenceRecord) -> None:
    connection.execute(
        "INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            evidence.evidence_sha256,
            evidence.proxy_id,
            evidence.seq,
            evidence.worker_id,
            evidence.received_at_unix_ms,
            evidence.at_unix_ms,
            evidence.outcome,
            evidence.payload,
        ),
    )


def _read_worker(admission: str, body: str) -> WorkerRecord:
    worker = codec.read_worker(body)
    if worker.admission.value != admission:
        text = f"worker '{worker.worker_id}' is stored as two things; restore from a backup"
        raise StateUnusable(text)
    return worker


def load_records(connection: sqlite3.Connection, now_unix_ms: int) -> tuple[Record, ...]:
    """Everything the in-memory ledger holds: live leases and usable grants; and of approval rules
    what they gave within the last hour, which still counts."""
    records: list[Record] = [
        _read_worker(admission, body)
        for admission, body in connection.execute("SELECT admission, body FROM workers")
    ]
    records += (
        codec.read_lease(body)
        for (body,) in connection.execute("SELECT body FROM leases WHERE live = 1")
    )
    records += (
        codec.read_grant(body)
        for (body,) in connection.execute(
            "SELECT body FROM grants WHERE (withdrawn = 0 AND uses < max_uses"
            " AND expires_at_unix_ms > ?) OR (grant_id >= ?"
            " AND json_extract(body, '$[0].rule') IS NOT NULL) ORDER BY grant_id",
            (now_unix_ms, first_id_of(now_unix_ms - HOUR_MS)),
        )
    )
    records += (
        Tombstone(TombstoneKind(kind), value)
        for kind, value in connection.execute("SELECT kind, value FROM tombstones")
    )
    records += (
        EnrolledKey(*row)
        for row in connection.execute(
            "SELECT kind, name, public_key, seq, last_sha256, device_id, revoked_at_unix_ms"
            " FROM enrolled"
        )
    )
    records += (
        ReferenceValue(*row)
        for row in connection.execute("SELECT digest_field, digest_sha256 FROM reference_values")
    )
    records += (
        FleetFreeze(bool(frozen), at_unix_ms, bool(egress), by)
        for frozen, at_unix_ms, egress, by in connection.execute(
            "SELECT frozen, at_unix_ms, egress, by_principal FROM fleet_freeze"
        )
    )
    return tuple(records)
