"""What the launcher measures and signs: the bytes that run, and nothing a worker says of itself."""

import os
from pathlib import Path

import pytest

from palyra_fleet.client import FleetProblem
from palyra_fleet.wire.dsse import ATTESTATION_TYPE, EnvelopeRefused, open_envelope
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import AttestationPayload
from palyra_fleet.worker.launcher import (
    ArtifactNotFound,
    Launcher,
    Statement,
    WorkerIdentity,
    artifact_is_unchanged,
    build_digest,
    canonical_digest,
    image_digest,
    measure,
    measure_artifact,
)
from palyra_fleet.worker.stop import StopKind, stop_for_problem

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NONCE = "n" * 43


def tool_in(directory: Path, content: bytes = b"#!/bin/sh\n") -> Path:
    tool = directory / "tool"
    tool.write_bytes(content)
    tool.chmod(0o700)
    return tool


def test_the_artifact_is_the_file_behind_the_link_and_keeps_its_name(tmp_path: Path) -> None:
    tool = tool_in(tmp_path, b"")
    link = tmp_path / "alias"
    link.symlink_to(tool)
    artifact = measure_artifact("alias", str(tmp_path))
    assert artifact.invoked_as == str(link)
    assert artifact.executable == tool.resolve()
    assert artifact.digest_sha256 == EMPTY_SHA256


def test_a_changed_or_missing_file_is_not_the_one_that_was_measured(tmp_path: Path) -> None:
    tool = tool_in(tmp_path)
    artifact = measure_artifact(str(tool))
    assert artifact_is_unchanged(artifact)
    tool.write_bytes(b"#!/bin/sh\n#")
    assert not artifact_is_unchanged(artifact)
    tool.unlink()
    assert not artifact_is_unchanged(artifact)


@pytest.mark.parametrize("command", ["", "no-such-tool", "/no/such/tool", "/etc"])
def test_what_is_no_executable_file_is_refused(command: str) -> None:
    with pytest.raises(ArtifactNotFound):
        measure_artifact(command, os.environ["PATH"])


def test_measuring_twice_gives_the_same() -> None:
    assert image_digest() == image_digest()
    assert build_digest() == build_digest()


def test_a_description_cannot_be_cut_differently() -> None:
    lists = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc"), ()]
    assert len({canonical_digest(parts) for parts in lists}) == len(lists)


def test_the_evidence_says_what_was_measured_under_the_launchers_signature(tmp_path: Path) -> None:
    key = SigningKey.generate()
    measured = measure(str(tool_in(tmp_path)))
    identity = WorkerIdentity("01ARZ3NDEKTSV4RRFFQ69G5FAV", "worker:1", ("shell",))
    worker = SigningKey.generate()
    statement = Statement(identity, measured, NONCE, worker, egress_enforced=False, now_unix_ms=5)
    envelope = Launcher(key, lifetime_ms=1000).attest(statement).envelope
    payload = AttestationPayload.model_validate_json(
        open_envelope(envelope, ATTESTATION_TYPE, key.public_key)
    )
    assert payload.artifact_digest_sha256 == measured.artifact.digest_sha256
    assert (payload.issued_at_unix_ms, payload.expires_at_unix_ms) == (5, 1005)
    assert (payload.nonce, payload.key_sha256) == (NONCE, worker.thumbprint)
    assert payload.supported_capabilities == ("shell",)
    with pytest.raises(EnvelopeRefused):
        open_envelope(envelope, ATTESTATION_TYPE, SigningKey.generate().public_key)


STOPS = [
    (403, "worker.quarantined", StopKind.QUARANTINED),
    (403, "worker.banned", StopKind.QUARANTINED),
    (404, "lease.unknown", StopKind.LEASE_STOPPED),
    (409, "lease.stale_fence", StopKind.LEASE_STOPPED),
    (409, "lease.ended", StopKind.LEASE_STOPPED),
    (409, "worker.session_stale", StopKind.SESSION_OVER),
    (404, "worker.unknown", StopKind.SESSION_OVER),
    (401, "api.proof_refused", StopKind.SESSION_OVER),
    (503, "fleet.store_unavailable", None),
    (500, "api.internal", None),
    (409, "worker.heartbeat_old", None),
    (429, "lease.capacity_leases", None),
]


@pytest.mark.parametrize(("status", "reason", "kind"), STOPS)
def test_a_refusal_ends_the_run_only_if_it_can_never_turn_out_well(
    status: int, reason: str, kind: StopKind | None
) -> None:
    stop = stop_for_problem(FleetProblem(status, reason, "why"))
    assert (stop and stop.kind) == kind
