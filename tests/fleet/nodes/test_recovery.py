"""The ways back: an earlier generation, and a file of the Rust system."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.identity.records import (
    ClientKind,
    CodeMethod,
    DevicePairingCodeRecord,
    DevicePairingRequestRecord,
    PairingChange,
    RequestState,
    VerifiedPairing,
)
from palyra_fleet.nodes.recovery import import_foreign, restore
from palyra_fleet.nodes.runtime_file import FILE_NAME
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from palyra_fleet.store.protocol import StateUnusable
from tests.fakes.ledger_world import ulid

NOW = 1_800_000_000_000
DEVICE = ulid(1)


def pairing_request(number: int, state: RequestState) -> DevicePairingRequestRecord:
    verified = VerifiedPairing(DEVICE, ClientKind.NODE, "a" * 64, "b" * 64, "c" * 64)
    return DevicePairingRequestRecord(
        ulid(number), ulid(number), DEVICE, ClientKind.NODE, CodeMethod.PIN, "anna", NOW,
        NOW + 1000, ulid(100 + number), state, verified,
    )  # fmt: skip


async def three_generations(state_dir: Path) -> Path:
    state = await NodeRuntimeState.open(state_dir, NOW)
    code = DevicePairingCodeRecord("d" * 64, CodeMethod.PIN, "anna", NOW, NOW + 1000)
    requests = tuple(pairing_request(n, s) for n, s in enumerate(RequestState))
    await state.commit_pairing(PairingChange(put_codes=(code,), put_requests=requests))
    await state.register_node(DEVICE, "linux", (), NOW)
    rejected = replace(requests[0], state=RequestState.REJECTED)
    await state.commit_pairing(
        PairingChange(remove_codes=(code.code_hash,), put_requests=(rejected,))
    )
    await state.close()
    return state_dir / FILE_NAME


async def test_an_earlier_generation_brings_back_nothing_that_was_open(tmp_path: Path) -> None:
    path = await three_generations(tmp_path / "state")
    path.write_bytes(b"torn")
    earlier = path.with_name(FILE_NAME + ".1")
    restore(tmp_path / "state", earlier, NOW)
    state = await NodeRuntimeState.open(tmp_path / "state", NOW)
    snapshot = state.pairing_snapshot()
    assert snapshot.codes == ()
    assert {r.request_id: r.state for r in snapshot.requests} == {
        ulid(0): RequestState.EXPIRED,  # had been rejected meanwhile
        ulid(1): RequestState.EXPIRED,  # may have been collected meanwhile
        ulid(2): RequestState.REJECTED,
        ulid(3): RequestState.COMPLETED,
        ulid(4): RequestState.EXPIRED,
    }
    assert DEVICE in state.nodes
    await state.close()


async def test_nothing_is_restored_under_a_running_fleet(tmp_path: Path) -> None:
    path = await three_generations(tmp_path / "state")
    state = await NodeRuntimeState.open(tmp_path / "state", NOW)
    with pytest.raises(StateUnusable, match="another process"):
        restore(tmp_path / "state", path.with_name(FILE_NAME + ".1"), NOW)
    await state.close()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
async def test_what_is_no_generation_is_not_restored(tmp_path: Path, content: bytes) -> None:
    path = await three_generations(tmp_path / "state")
    before = path.read_bytes()
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    bad.chmod(0o600)
    with pytest.raises(StateUnusable, match="cannot be used either"):
        restore(tmp_path / "state", bad, NOW)
    with pytest.raises(StateUnusable, match="there is no such file"):
        restore(tmp_path / "state", tmp_path / "none", NOW)
    assert path.read_bytes() == before


FOREIGN = {
    "active_pairing_codes": {
        "123456": {
            "code": "123456", "method": "pin", "issued_by": "admin",
            "created_at_unix_ms": NOW, "expires_at_unix_ms": NOW + 1000,
        }
    },
    "pairing_requests": {
        ulid(3): {
            "request_id": ulid(3), "session_id": ulid(3), "device_id": DEVICE,
            "client_kind": "node", "method": "qr", "code_issued_by": "admin",
            "requested_at_unix_ms": NOW, "expires_at_unix_ms": NOW + 1,
            "approval_id": ulid(4), "state": "completed", "decision_reason": None,
            "decision_scope_ttl_ms": None,
            "verified_pairing": {
                "device_id": DEVICE, "client_kind": "node", "identity_fingerprint": "a" * 64,
                "signing_public_key_hex": "b" * 64, "transcript_hash_hex": "c" * 64,
            },
            "material": {
                "identity_fingerprint": "a" * 64, "mtls_client_certificate_pem": "PEM",
                "mtls_client_private_key_pem": "s3cret key", "gateway_ca_certificate_pem": "PEM",
                "cert_expires_at_unix_ms": NOW,
            },
        }
    },
    "nodes": {
        DEVICE: {
            "device_id": DEVICE, "platform": "linux",
            "capabilities": [{"name": "echo", "available": True}],
            "registered_at_unix_ms": NOW, "last_seen_at_unix_ms": NOW,
            "last_event_name": None, "last_event_at_unix_ms": None,
        }
    },
}  # fmt: skip


def hashed(method: CodeMethod, code: str) -> str:
    return f"{method.value}{code}".encode().hex().ljust(64, "0")


def foreign_file(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "foreign.json"
    file.write_text(json.dumps(content))
    file.chmod(0o600)
    return file


async def test_a_file_of_the_rust_system_is_taken_over_without_its_secrets(tmp_path: Path) -> None:
    found = import_foreign(tmp_path / "state", foreign_file(tmp_path, FOREIGN), hashed, NOW)
    assert set(found.dropped) == {
        "pairing_requests.*.decision_scope_ttl_ms",
        "pairing_requests.*.material.mtls_client_private_key_pem",
    }
    written = (tmp_path / "state" / FILE_NAME).read_text()
    assert "s3cret" not in written
    assert '"123456"' not in written
    state = await NodeRuntimeState.open(tmp_path / "state", NOW)
    assert [c.code_hash for c in state.pairing_snapshot().codes] == [
        hashed(CodeMethod.PIN, "123456")
    ]
    assert [r.state for r in state.pairing_snapshot().requests] == [RequestState.COMPLETED]
    assert state.nodes[DEVICE].capabilities[0].name == "echo"
    await state.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nodes": {DEVICE: {"device_id": DEVICE}}}, "nodes"),
        ({"nodes": {ulid(9): FOREIGN["nodes"][DEVICE]}}, "the key is not the record's own"),
        ({"nodes": []}, "expected an object of maps"),
        ({"active_pairing_codes": {"1": {"method": "sms"}}}, "method must be pin or qr"),
        ({"active_pairing_codes": {"1": {"method": "pin", "code": 1}}}, "code must be text"),
    ],
)
async def test_a_foreign_file_that_does_not_fit_is_refused_whole(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    source = foreign_file(tmp_path, FOREIGN | change)
    with pytest.raises(StateUnusable, match=says):
        import_foreign(tmp_path / "state", source, hashed, NOW)
    assert not (tmp_path / "state" / FILE_NAME).exists()


async def test_an_import_writes_over_nothing(tmp_path: Path) -> None:
    path = await three_generations(tmp_path / "state")
    before = path.read_bytes()
    with pytest.raises(StateUnusable, match="is there already"):
        import_foreign(tmp_path / "state", foreign_file(tmp_path, FOREIGN), hashed, NOW)
    assert path.read_bytes() == before
