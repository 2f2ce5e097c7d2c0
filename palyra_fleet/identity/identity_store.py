"""IdentityStore: devices, certificates, authorities and sealed secrets in a database of their own.

The order of writing within one transaction follows the constraints: what ends before what begins.
Records are JSON, read back through their types; what does not fit is StateUnusable at start.
Durability, the event chain and refusals to start are `SqliteDatabase`'s.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from palyra_fleet.identity.authority import AuthorityRecord
from palyra_fleet.identity.device_records import (
    CertificateRecord,
    DeviceRecord,
    IdentityDecision,
    IdentitySnapshot,
)
from palyra_fleet.identity.identity_schema import IDENTITY_DATABASE
from palyra_fleet.store.event_chain import canonical
from palyra_fleet.store.sqlite_database import SqliteDatabase
from palyra_fleet.wire.models import EventView

_DEVICE: Final = TypeAdapter(DeviceRecord)
_CERTIFICATE: Final = TypeAdapter(CertificateRecord)


class IdentityStore:
    """Durable memory of identity. `open` before anything else."""

    def __init__(self, state_dir: Path) -> None:
        self._database = SqliteDatabase(state_dir, IDENTITY_DATABASE)

    async def open(self) -> IdentitySnapshot:
        """Raises StateUnusable with what to do."""
        return await self._database.open(_load)

    async def close(self) -> None:
        await self._database.close()

    async def commit(
        self, decision: IdentityDecision, sealed: Mapping[str, bytes] | None = None
    ) -> None:
        """Durable when this returns. Raises StoreConflict or StoreFailed."""

        def write(connection: sqlite3.Connection) -> None:
            _write(connection, decision)
            _seal(connection, sealed or {})

        await self._database.write(decision.at_unix_ms, decision.events, write)

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        return await self._database.events(after_seq, limit)

    async def verify_events(self) -> int:
        return await self._database.verify_events()


def _load(connection: sqlite3.Connection, meta: Mapping[str, str]) -> IdentitySnapshot:
    devices = connection.execute("SELECT body FROM devices").fetchall()
    certificates = connection.execute(
        "SELECT body FROM certificates ORDER BY issued_at_unix_ms, rowid"
    ).fetchall()
    authorities = connection.execute(
        "SELECT authority_id, certificate_der, sealed_key, created_at_unix_ms, retired_at_unix_ms"
        " FROM authorities ORDER BY created_at_unix_ms, rowid"
    ).fetchall()
    return IdentitySnapshot(
        high_water_unix_ms=int(meta["high_water_unix_ms"]),
        devices=tuple(_DEVICE.validate_python(json.loads(body)) for (body,) in devices),
        certificates=tuple(
            _CERTIFICATE.validate_python(json.loads(body)) for (body,) in certificates
        ),
        authorities=tuple(AuthorityRecord(*row) for row in authorities),
        sealed=dict(connection.execute("SELECT name, box FROM sealed")),
    )


def _write(connection: sqlite3.Connection, decision: IdentityDecision) -> None:
    ended = [certificate for certificate in decision.certificates if certificate.revoked]
    others = [certificate for certificate in decision.certificates if not certificate.revoked]
    _put_certificates(connection, ended)
    for device_id in decision.removed_devices:
        connection.execute("DELETE FROM devices WHERE device_id = ?", (device_id,))
    for device in decision.devices:
        connection.execute(
            "INSERT INTO devices (device_id, revoked, body) VALUES (?, ?, ?)"
            " ON CONFLICT (device_id) DO UPDATE"
            " SET revoked = excluded.revoked, body = excluded.body",
            (device.device_id, int(device.revoked), canonical(asdict(device))),
        )
    _put_certificates(connection, others)
    if decision.forgotten_certificates:  # a constraint compares their end with the latest time
        connection.execute(
            "UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), ?) AS TEXT)"
            " WHERE key = 'high_water_unix_ms'",
            (decision.at_unix_ms,),
        )
    for fingerprint in decision.forgotten_certificates:
        connection.execute("DELETE FROM certificates WHERE fingerprint = ?", (fingerprint,))
    for authority in decision.authorities:
        connection.execute(
            "INSERT INTO authorities (authority_id, certificate_der, sealed_key,"
            " created_at_unix_ms, retired_at_unix_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (authority_id) DO UPDATE SET sealed_key = excluded.sealed_key,"
            " retired_at_unix_ms = excluded.retired_at_unix_ms",
            (
                authority.authority_id,
                authority.certificate_der,
                authority.sealed_key,
                authority.created_at_unix_ms,
                authority.retired_at_unix_ms,
            ),
        )


def _put_certificates(
    connection: sqlite3.Connection, certificates: list[CertificateRecord]
) -> None:
    for certificate in certificates:
        connection.execute(
            "INSERT INTO certificates (fingerprint, device_id, origin, state, issued_at_unix_ms,"
            " not_after_unix_ms, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (fingerprint) DO UPDATE SET device_id = excluded.device_id,"
            " origin = excluded.origin, state = excluded.state, body = excluded.body",
            (
                certificate.fingerprint,
                certificate.device_id,
                certificate.origin,
                certificate.state.value,
                certificate.issued_at_unix_ms,
                certificate.not_after_unix_ms,
                canonical(asdict(certificate)),
            ),
        )


def _seal(connection: sqlite3.Connection, sealed: Mapping[str, bytes]) -> None:
    connection.executemany(
        "INSERT INTO sealed (name, box) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET box = excluded.box",
        list(sealed.items()),
    )
