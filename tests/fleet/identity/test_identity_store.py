"""Identity's state that must not be used, and the constraints that hold whatever the code does."""

import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.identity.authority import IssuedLeaf, make_authority
from palyra_fleet.identity.device_ledger import IdentityLedger
from palyra_fleet.identity.device_records import (
    CertificateRecord,
    CertificateState,
    DeviceRecord,
    IdentityDecision,
    IdentityEvent,
    IdentityEventReason,
)
from palyra_fleet.identity.identity_schema import IDENTITY_FILES
from palyra_fleet.identity.identity_store import IdentityStore
from palyra_fleet.identity.records import ClientKind, VerifiedPairing
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreConflict
from palyra_fleet.store.state_directory import AUTHORITY
from tests.fakes.identity_world import MASTER, identity_world
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice

NOW = 1_800_000_000_000
DATABASE, MARKER = IDENTITY_FILES.database, IDENTITY_FILES.marker


async def _written(state_dir: Path) -> None:
    async with identity_world(state_dir) as world:
        await world.pair(PairingDevice(ulid(1)))
        await world.pair(PairingDevice(ulid(2)))
        await world.identity.revoke_device(ulid(1), "stolen", "anna")


async def _refusal(state_dir: Path) -> str:
    with pytest.raises(StateUnusable) as caught:
        async with identity_world(state_dir):
            pass
    return str(caught.value)


async def test_a_store_that_is_gone_where_an_authority_is_known_stops_the_start(
    tmp_path: Path,
) -> None:
    await _written(tmp_path / "state")
    for path in (tmp_path / "state").glob("identity*"):
        path.unlink()
    said = await _refusal(tmp_path / "state")
    assert DATABASE in said
    assert "restore the file from a backup" in said
    assert "every pairing and every revocation" in said
    assert not (tmp_path / "state" / DATABASE).exists()


@pytest.mark.parametrize("left", [MARKER, AUTHORITY])
async def test_either_sign_of_an_earlier_state_is_enough(tmp_path: Path, left: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / left).touch()
    assert "restore" in await _refusal(state)


async def test_a_damaged_store_stops_the_start(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    (tmp_path / "state" / DATABASE).write_bytes(b"not a database" * 1_000)
    assert "restore" in await _refusal(tmp_path / "state")


async def test_a_truncated_store_stops_the_start(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    path = tmp_path / "state" / DATABASE
    os.truncate(path, path.stat().st_size // 2)
    assert "restore" in await _refusal(tmp_path / "state")


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM sealed",
        "UPDATE devices SET body = '{}'",
        "UPDATE devices SET body = 'no json'",
        "UPDATE certificates SET body = json_set(body, '$.state', 'good') WHERE state <> 'revoked'",
        "DELETE FROM meta WHERE key = 'high_water_unix_ms'",
        "UPDATE meta SET value = '2' WHERE key = 'schema_version'",
        "UPDATE meta SET value = '1' WHERE key = 'chain_seq'",
    ],
)
async def test_what_no_release_wrote_stops_the_start(tmp_path: Path, damage: str) -> None:
    await _written(tmp_path / "state")
    connection = sqlite3.connect(tmp_path / "state" / DATABASE)
    connection.execute(damage)
    connection.commit()
    connection.close()
    said = await _refusal(tmp_path / "state")
    assert DATABASE in said


async def test_an_edited_event_log_is_found(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    connection = sqlite3.connect(tmp_path / "state" / DATABASE)
    connection.execute("DROP TRIGGER events_are_final")
    connection.execute("UPDATE events SET actor = 'nobody' WHERE reason LIKE '%device_revoked'")
    connection.commit()
    connection.close()
    assert "event log is broken" in await _refusal(tmp_path / "state")


async def test_two_processes_do_not_share_a_state(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state"):
        assert "another process uses this state" in await _refusal(tmp_path / "state")


async def test_files_are_private(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    (tmp_path / "state" / DATABASE).chmod(0o640)
    assert "too open" in await _refusal(tmp_path / "state")


async def test_no_private_key_lies_in_the_clear(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state") as world:
        await world.pair(PairingDevice(ulid(1)))
        key = world.identity.authority._signers[0].key
        secret = key.private_numbers().private_value.to_bytes(32, "big")
        pepper = world.identity.pairing_pepper
        world.identity.server_identity()
        for path in (tmp_path / "state").rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert secret not in content, path
            assert pepper not in content, path
            assert b"PRIVATE KEY" not in content, path


class _Bench:
    """A store with one paired device, to try forbidden writes on."""

    def __init__(self, store: IdentityStore) -> None:
        self.store = store
        self.device = DeviceRecord(ulid(1), ClientKind.NODE, "f" * 64, "00" * 32, NOW, ulid(5))
        self.certificate = _certificate("a" * 64, "pairing:1", CertificateState.CURRENT)

    async def write(
        self,
        *certificates: CertificateRecord,
        devices: tuple[DeviceRecord, ...] = (),
        removed: tuple[str, ...] = (),
        forgotten: tuple[str, ...] = (),
    ) -> None:
        event = IdentityEvent(IdentityEventReason.CERTIFICATE_ISSUED, "test")
        decision = IdentityDecision(NOW, devices, removed, certificates, forgotten, (), (event,))
        await self.store.commit(decision)


def _certificate(
    fingerprint: str, origin: str, state: CertificateState, device_id: str = ulid(1)
) -> CertificateRecord:
    return CertificateRecord(
        fingerprint, device_id, origin, None, "aa", "pem", NOW, NOW, NOW + 1000, 0, state
    )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[_Bench]:
    store = IdentityStore(tmp_path / "state")
    await store.open()
    bench = _Bench(store)
    await bench.write(bench.certificate, devices=(bench.device,))
    yield bench
    await store.close()


async def _refused(bench: _Bench, constraint: str, *certificates: CertificateRecord) -> None:
    with pytest.raises(StoreConflict, match=constraint):
        await bench.write(*certificates)


async def test_one_certificate_per_approval(bench: _Bench) -> None:
    second = _certificate("b" * 64, "pairing:1", CertificateState.PENDING)
    await _refused(bench, "origin", second)


async def test_one_current_and_one_pending_certificate_per_device(bench: _Bench) -> None:
    await _refused(bench, "device_id", _certificate("b" * 64, "x", CertificateState.CURRENT))
    await bench.write(_certificate("b" * 64, "x", CertificateState.PENDING))
    await _refused(bench, "device_id", _certificate("c" * 64, "y", CertificateState.PENDING))


async def test_a_revoked_certificate_stays_revoked_and_is_remembered(bench: _Bench) -> None:
    await bench.write(bench.certificate.revoke("test"))
    await _refused(bench, "stays revoked", bench.certificate)
    with pytest.raises(StoreConflict, match="until it has ended"):
        await bench.write(forgotten=("a" * 64,))


async def test_a_revoked_device_has_no_good_certificate(bench: _Bench) -> None:
    revoked = replace(bench.device, revoked_at_unix_ms=NOW)
    with pytest.raises(StoreConflict, match="no good certificate"):
        await bench.write(devices=(revoked,))
    await bench.write(bench.certificate.revoke("test"), devices=(revoked,))
    await _refused(
        bench, "needs a paired device", _certificate("b" * 64, "x", CertificateState.PENDING)
    )
    with pytest.raises(StoreConflict, match="removed before it pairs again"):
        await bench.write(devices=(bench.device,))
    await bench.write(removed=(ulid(1),))
    await bench.write(devices=(bench.device,))


async def test_a_device_that_is_removed_holds_nothing_good(bench: _Bench) -> None:
    with pytest.raises(StoreConflict, match="no good certificate"):
        await bench.write(removed=(ulid(1),))


async def test_a_certificate_keeps_its_device(bench: _Bench) -> None:
    await _refused(
        bench, "one device", _certificate("a" * 64, "pairing:1", CertificateState.REVOKED, ulid(2))
    )


async def test_a_retired_authority_does_not_come_back(bench: _Bench) -> None:
    made = make_authority(MASTER, NOW)
    ledger = IdentityLedger()
    await bench.store.commit(ledger.add_authority(NOW, made, "test", "test"))
    gone = replace(made, sealed_key=b"", retired_at_unix_ms=NOW)
    await bench.store.commit(ledger.add_authority(NOW, gone, "test", "test"))
    with pytest.raises(StoreConflict, match="stays retired"):
        await bench.store.commit(ledger.add_authority(NOW, made, "test", "test"))


async def test_the_event_chain_is_walked_whole(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    store = IdentityStore(tmp_path / "state")
    await store.open()
    assert await store.verify_events() >= 5
    connection = sqlite3.connect(tmp_path / "state" / DATABASE)
    connection.execute("DROP TRIGGER events_are_final")
    connection.execute("UPDATE events SET actor = 'nobody' WHERE seq = 1")
    connection.commit()
    connection.close()
    with pytest.raises(ChainBroken, match="event 1 "):
        await store.verify_events()
    await store.close()


def test_a_pairing_twice_for_one_request_is_not_decided_twice() -> None:
    """The ledger knows the certificate of a request; the constraint stands behind it."""
    ledger = IdentityLedger()
    verified = VerifiedPairing(ulid(1), ClientKind.NODE, "f" * 64, "00" * 32, "0" * 64)
    leaf = IssuedLeaf("pem", "a" * 64, "aa", NOW, NOW + 1000)
    decision = ledger.pair(NOW, verified, ulid(5), leaf, 0)
    assert isinstance(decision, IdentityDecision)
    ledger.apply(decision)
    found = ledger.of_request(ulid(5))
    assert found is not None
    assert found.fingerprint == "a" * 64
