"""One suite for every attestor, through the real service, on real material made here."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.settings.file import SettingsFile
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import ATTESTATION_TYPE, RECEIPT_TYPE, DsseEnvelope
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.attestation_material import PROVERS, Prover
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world, public
from tests.fakes.ledger_world import ulid

W1, W2 = ulid(1), ulid(2)
EVERY_KIND = pytest.mark.parametrize("make", PROVERS, ids=lambda prover: prover.kind)
NOT_VOUCHED = FleetReason.EVIDENCE_REFUSED


@asynccontextmanager
async def world_of(prover: Prover, state_dir: Path) -> AsyncIterator[FleetWorld]:
    async with fleet_world(file=prover.file(), state_dir=state_dir) as world:
        await prover.prepare(world)
        yield world


def payload_of(
    prover: Prover, world: FleetWorld, worker: WorkerPen, nonce: str, changes: dict[str, Any]
) -> bytes:
    """What the worker's statement says, spoiled by `changes`."""
    now = world.clock()
    said = {
        "worker_id": worker.worker_id,
        "image_digest_sha256": "1" * 64,
        "build_digest_sha256": "2" * 64,
        "artifact_digest_sha256": "3" * 64,
        "egress_proxy_attested": True,
        "supported_capabilities": [],
        "sdk_protocol_version": 1,
        "wit_abi_version": "palyra-worker-abi/v1",
        "issued_at_unix_ms": now,
        "expires_at_unix_ms": now + 3_600_000,
        "nonce": nonce,
        "key_sha256": worker.key.thumbprint,
        "evidence_kind": prover.kind,
        "evidence_identity": prover.identity(worker),
        **changes,
    }
    return json.dumps(said).encode()


async def registration(
    prover: Prover, world: FleetWorld, worker: WorkerPen, /, **changes: Any
) -> wire.RegisterRequest:
    nonce = await world.nonce(worker.key)
    said = payload_of(prover, world, worker, nonce, changes)
    evidence = prover.seal(worker, ATTESTATION_TYPE, said)
    return request_of(prover, world, worker, nonce, evidence)


def request_of(
    prover: Prover, world: FleetWorld, worker: WorkerPen, nonce: str, evidence: DsseEnvelope
) -> wire.RegisterRequest:
    return wire.RegisterRequest(
        public_key=public(worker.key),
        evidence=evidence,
        receipt=world.proxy.receipt(worker.key, nonce, world.clock()),
        backing=prover.backing(worker),
    )


async def refusal_of(world: FleetWorld, request: wire.RegisterRequest) -> FleetRefusal:
    with pytest.raises(FleetRefusal) as caught:
        await world.service.register(request)
    assert await world.service.workers() == ()
    return caught.value


@EVERY_KIND
async def test_the_right_evidence_is_admitted_and_may_be_renewed(
    make: type[Prover], tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        worker = WorkerPen(W1)
        answer = await world.service.register(await registration(prover, world, worker))
        assert (answer.worker_id, answer.state) == (W1, "available")
        again = await registration(prover, world, worker)
        continued = again.model_copy(update={"continues_session": True})
        assert (await world.service.register(continued)).session_epoch == 2
        events = await world.service.events(0, 100)
        admitted = next(event for event in events if event.reason == "worker.registered")
        assert admitted.detail["evidence_kind"] == prover.kind
        assert admitted.detail["evidence_identity"] == prover.identity(worker)
        assert admitted.detail["binding_policy_digest"] == "policy"


@EVERY_KIND
async def test_without_its_table_in_the_settings_no_attestor_is_there(make: type[Prover]) -> None:
    prover = make()
    async with fleet_world(file=SettingsFile()) as world:
        prover.launcher = world.launcher
        request = await registration(prover, world, WorkerPen(W1))
        if prover.kind == "launcher":
            request = request.model_copy(
                update={"evidence": Prover().seal(WorkerPen(W1), ATTESTATION_TYPE, b"{}")}
            )
            said = "the evidence is not signed by an enrolled launcher"
        else:
            said = f"no attestor '{prover.kind}' is configured"
        refusal = await refusal_of(world, request)
        assert (refusal.reason, refusal.text) == (NOT_VOUCHED, said)


@EVERY_KIND
async def test_a_signature_by_any_other_key_is_refused(make: type[Prover], tmp_path: Path) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        worker = WorkerPen(W1)
        nonce = await world.nonce(worker.key)
        said = payload_of(prover, world, worker, nonce, {})
        evidence = prover.stranger(worker, ATTESTATION_TYPE, said)
        refusal = await refusal_of(world, request_of(prover, world, worker, nonce, evidence))
        assert refusal.reason is NOT_VOUCHED
        assert refusal.text == "the evidence is refused: the signature is not this key's"


@EVERY_KIND
async def test_a_payload_that_was_changed_after_signing_is_refused(
    make: type[Prover], tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        worker = WorkerPen(W1)
        request = await registration(prover, world, worker)
        other = await registration(prover, world, worker, artifact_digest_sha256="4" * 64)
        tampered = request.evidence.model_copy(update={"payload": other.evidence.payload})
        refusal = await refusal_of(world, request.model_copy(update={"evidence": tampered}))
        assert refusal.text == "the evidence is refused: the signature is not this key's"


@EVERY_KIND
async def test_another_payload_type_is_refused(make: type[Prover], tmp_path: Path) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        worker = WorkerPen(W1)
        nonce = await world.nonce(worker.key)
        said = payload_of(prover, world, worker, nonce, {})
        evidence = prover.seal(worker, RECEIPT_TYPE, said)
        refusal = await refusal_of(world, request_of(prover, world, worker, nonce, evidence))
        assert refusal.text == f"the evidence is refused: expected payload type {ATTESTATION_TYPE}"


@EVERY_KIND
async def test_evidence_of_another_kind_is_refused(make: type[Prover], tmp_path: Path) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        other = "x509pop" if prover.kind == "launcher" else "launcher"
        request = await registration(prover, world, WorkerPen(W1), evidence_kind=other)
        refusal = await refusal_of(world, request)
        assert refusal.text == f"the evidence says that it is of kind {other}, not {prover.kind}"


@EVERY_KIND
async def test_evidence_and_backing_of_another_worker_do_not_admit_a_stranger(
    make: type[Prover], tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        victim, thief = WorkerPen(W1), WorkerPen(W2)
        nonce = await world.nonce(victim.key)
        said = payload_of(prover, world, victim, nonce, {})
        stolen = prover.seal(victim, ATTESTATION_TYPE, said)
        request = request_of(prover, world, thief, nonce, stolen)
        refusal = await refusal_of(world, request)
        assert refusal.reason in {FleetReason.KEY_MISMATCH, NOT_VOUCHED}


@EVERY_KIND
async def test_an_identity_that_the_attestor_does_not_vouch_for_is_refused(
    make: type[Prover], tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        taken = "k8s_psat:prod:0d8b260e-ef0e-45fb-be8e-ff44f97722e9"
        request = await registration(prover, world, WorkerPen(W1), evidence_identity=taken)
        refusal = await refusal_of(world, request)
        assert refusal.reason is NOT_VOUCHED
        assert "identity" in refusal.text or "another worker" in refusal.text


SPOILED: list[tuple[dict[str, Any], FleetReason, str]] = [
    ({"nonce": "n" * 43}, FleetReason.NONCE_REFUSED, "the nonce is unknown, spent, late or not"),
    (
        {"issued_at_unix_ms": 2**52, "expires_at_unix_ms": 2**53},
        FleetReason.NOT_YET_VALID,
        "worker attestation is not yet valid",
    ),
    ({"expires_at_unix_ms": 1}, FleetReason.ATTESTATION_EXPIRED, "worker attestation has expired"),
    (
        {"egress_proxy_attested": False},
        FleetReason.MISSING_BINDING,
        "worker attestation is missing an egress proxy binding",
    ),
    (
        {"build_digest_sha256": "9" * 64},
        FleetReason.DIGEST_BUILD,
        "worker attestation build digest did not match the expected value",
    ),
    (
        {"artifact_digest_sha256": "9" * 64},
        FleetReason.DIGEST_ARTIFACT,
        "worker attestation artifact digest did not match the expected value",
    ),
    ({"wit_abi_version": "x"}, FleetReason.INCOMPATIBLE, "worker compatibility check failed"),
    ({"worker_id": "w"}, NOT_VOUCHED, "the evidence is not a well-formed worker attestation"),
    ({"unknown": 1}, NOT_VOUCHED, "the evidence is not a well-formed worker attestation"),
]


@pytest.mark.parametrize(("changes", "reason", "text"), SPOILED, ids=[str(s[0]) for s in SPOILED])
@EVERY_KIND
async def test_spoiled_statements_are_refused_with_the_published_text(
    make: type[Prover], changes: dict[str, Any], reason: FleetReason, text: str, tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        refusal = await refusal_of(
            world, await registration(prover, world, WorkerPen(W1), **changes)
        )
        assert refusal.reason is reason
        assert refusal.text.startswith(text)


@EVERY_KIND
async def test_a_nonce_counts_once(make: type[Prover], tmp_path: Path) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        request = await registration(prover, world, WorkerPen(W1))
        calls = (world.service.register(request) for _ in range(64))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, wire.RegisterAnswer) for answer in answers) == 1
        refused = [answer for answer in answers if isinstance(answer, FleetRefusal)]
        assert {refusal.reason for refusal in refused} == {FleetReason.NONCE_REFUSED}


@EVERY_KIND
async def test_an_empty_set_of_reference_values_admits_nobody(
    make: type[Prover], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        monkeypatch.setattr(world.service._manager.state, "references", set())
        refusal = await refusal_of(world, await registration(prover, world, WorkerPen(W1)))
        by_provenance = prover.kind == "oci_dsse"  # vouches for the image, and for nothing else
        first = FleetReason.DIGEST_BUILD if by_provenance else FleetReason.DIGEST_IMAGE
        assert refusal.reason is first


@EVERY_KIND
async def test_a_banned_worker_stays_out_under_any_name_and_key(
    make: type[Prover], tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        worker = WorkerPen(W1)
        await world.service.register(await registration(prover, world, worker))
        await world.service.ban("alice", W1, "enough")
        identity = prover.identity(worker)
        await prover.prepare(world)
        renamed = WorkerPen(W2, SigningKey.generate())
        request = await registration(prover, world, renamed, evidence_identity=identity)
        if prover.kind not in {"launcher", "oci_dsse"}:  # there the launcher names the worker
            assert prover.identity(renamed) == identity
        with pytest.raises(FleetRefusal) as caught:
            await world.service.register(request)
        assert caught.value.reason is FleetReason.WORKER_BANNED
