"""Registration through the service: real keys, real envelopes, every way it is refused."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import Caller, FleetService
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import RECEIPT_TYPE, seal
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.reattest_models import ReattestRequest
from tests.fakes.fleet_world import (
    Clock,
    FleetWorld,
    ProxyPen,
    WorkerPen,
    fleet_world,
    public,
    settings,
)
from tests.fakes.ledger_world import ulid
from tests.fakes.memory_fleet_store import MemoryFleetStore

W1, W2 = ulid(1), ulid(2)


async def _reason(world: FleetWorld, request: wire.RegisterRequest) -> FleetReason:
    with pytest.raises(FleetRefusal) as caught:
        await world.service.register(request)
    return caught.value.reason


async def test_a_worker_with_evidence_and_receipt_is_admitted() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        answer = await world.register(worker)
        assert (answer.worker_id, answer.session_epoch, answer.state) == (W1, 1, "available")
        assert 0 < answer.heartbeat_within_ms < 30_000
        expected = Caller("worker", W1, worker.key.public_key, 1)
        assert world.service.caller_by_key(worker.key.thumbprint) == expected
        proxy = world.service.caller_by_key(world.proxy.key.thumbprint)
        assert proxy == Caller("proxy", "proxy-1", world.proxy.key.public_key)
        assert world.service.caller_by_key("0" * 64) is None


async def test_the_default_fleet_admits_nobody() -> None:
    """Invariant 12."""
    clock = Clock()
    service = await FleetService.start_on(MemoryFleetStore(), settings(Path("/nowhere")), clock)
    world = FleetWorld(service, clock)
    worker = WorkerPen(W1)
    request = await world.registration(worker)
    assert await _reason(world, request) is FleetReason.EVIDENCE_REFUSED
    launcher = wire.EnrolKeyRequest(name="l", public_key=public(world.launcher))
    await service.enrol_launcher("alice", launcher)
    request = await world.registration(worker)
    assert await _reason(world, request) is FleetReason.RECEIPT_REFUSED
    proxy = wire.EnrolKeyRequest(name="proxy-1", public_key=public(world.proxy.key))
    await service.enrol_proxy("alice", proxy)
    request = await world.registration(worker)
    assert await _reason(world, request) is FleetReason.DIGEST_IMAGE
    assert await service.workers() == ()
    await service.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"egress_proxy_attested": False}, FleetReason.MISSING_BINDING),
        ({"image_digest_sha256": "9" * 64}, FleetReason.DIGEST_IMAGE),
        ({"build_digest_sha256": "9" * 64}, FleetReason.DIGEST_BUILD),
        ({"artifact_digest_sha256": "9" * 64}, FleetReason.DIGEST_ARTIFACT),
        ({"wit_abi_version": "other"}, FleetReason.INCOMPATIBLE),
        ({"sdk_protocol_version": 2}, FleetReason.INCOMPATIBLE),
        ({"key_sha256": "9" * 64}, FleetReason.KEY_MISMATCH),
        ({"nonce": "n" * 43}, FleetReason.NONCE_REFUSED),
        ({"issued_at_unix_ms": 2**52, "expires_at_unix_ms": 2**53}, FleetReason.NOT_YET_VALID),
        ({"expires_at_unix_ms": 1}, FleetReason.ATTESTATION_EXPIRED),
    ],
)
async def test_spoiled_evidence_is_refused(changes: dict[str, Any], reason: FleetReason) -> None:
    async with fleet_world() as world:
        request = await world.registration(WorkerPen(W1), **changes)
        assert await _reason(world, request) is reason
        assert await world.service.workers() == ()


async def test_evidence_of_a_launcher_nobody_enrolled_is_refused() -> None:
    async with fleet_world() as world:
        trusted, world.launcher = world.launcher, SigningKey.generate()
        request = await world.registration(WorkerPen(W1))
        assert await _reason(world, request) is FleetReason.EVIDENCE_REFUSED
        forged = request.evidence.signatures[0].model_copy(update={"keyid": trusted.thumbprint})
        evidence = request.evidence.model_copy(update={"signatures": (forged,)})
        request = request.model_copy(update={"evidence": evidence})
        assert await _reason(world, request) is FleetReason.EVIDENCE_REFUSED


async def test_a_receipt_is_no_evidence_and_evidence_is_no_receipt() -> None:
    async with fleet_world() as world:
        request = await world.registration(WorkerPen(W1))
        swapped = request.model_copy(update={"evidence": request.receipt})
        assert await _reason(world, swapped) is FleetReason.EVIDENCE_REFUSED
        swapped = request.model_copy(update={"receipt": request.evidence})
        assert await _reason(world, swapped) is FleetReason.RECEIPT_REFUSED


@pytest.mark.parametrize(
    "changes",
    [
        {"proxy_id": "proxy-2"},
        {"worker_key_sha256": "9" * 64},
        {"nonce": "n" * 43},
        {"at_unix_ms": Clock().now_unix_ms - 60_001},  # one ms too old
        {"at_unix_ms": Clock().now_unix_ms + 5_001},  # one ms too far ahead
    ],
)
async def test_a_receipt_about_anything_else_is_refused(changes: dict[str, Any]) -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        nonce = await world.nonce(worker.key)
        request = wire.RegisterRequest(
            public_key=public(worker.key),
            evidence=world.evidence(worker, nonce),
            receipt=world.proxy.receipt(worker.key, nonce, world.clock(), **changes),
        )
        assert await _reason(world, request) is FleetReason.RECEIPT_REFUSED


async def test_a_receipt_of_a_proxy_nobody_enrolled_is_refused() -> None:
    async with fleet_world() as world:
        stranger = ProxyPen("proxy-1")
        worker = WorkerPen(W1)
        nonce = await world.nonce(worker.key)
        request = wire.RegisterRequest(
            public_key=public(worker.key),
            evidence=world.evidence(worker, nonce),
            receipt=stranger.receipt(worker.key, nonce, world.clock()),
        )
        assert await _reason(world, request) is FleetReason.RECEIPT_REFUSED


async def test_verified_bytes_that_are_not_a_receipt_are_refused() -> None:
    async with fleet_world() as world:
        request = await world.registration(WorkerPen(W1))
        nonsense = seal(world.proxy.key, RECEIPT_TYPE, b'{"proxy_id": "proxy-1"}')
        request = request.model_copy(update={"receipt": nonsense})
        assert await _reason(world, request) is FleetReason.RECEIPT_REFUSED


async def test_a_nonce_registers_once_and_in_time_for_its_own_key() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        request = await world.registration(worker)
        await world.service.register(request)
        assert await _reason(world, request) is FleetReason.NONCE_REFUSED
        late = await world.registration(worker)
        world.clock.forward(60_000)
        assert await _reason(world, late) is FleetReason.NONCE_REFUSED
        others = await world.nonce(SigningKey.generate())
        stolen = wire.RegisterRequest(
            public_key=public(worker.key),
            evidence=world.evidence(worker, others),
            receipt=world.proxy.receipt(worker.key, others, world.clock()),
        )
        assert await _reason(world, stolen) is FleetReason.NONCE_REFUSED


@pytest.mark.parametrize("demanded", [False, True])
async def test_evidence_from_before_a_demand_is_worth_nothing_after_an_evict(
    demanded: bool,
) -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        begun = await world.registration(worker)
        world.clock.forward(1)
        if demanded:
            await world.service.reattest("alice", W1, ReattestRequest(reason="looked odd"))
        later = await world.registration(worker)
        await world.service.evict("alice", W1, "gone")
        if demanded:
            assert await _reason(world, begun) is FleetReason.NONCE_REFUSED
        await world.service.register(later)


async def test_one_of_64_racing_registrations_with_one_nonce_wins() -> None:
    async with fleet_world() as world:
        request = await world.registration(WorkerPen(W1))
        calls = (world.service.register(request) for _ in range(64))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(a, wire.RegisterAnswer) for a in answers) == 1
        assert sum(isinstance(a, FleetRefusal) for a in answers) == 63


async def test_a_renamed_worker_is_the_same_worker() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        renamed = WorkerPen(W2)
        request = await world.registration(renamed, evidence_identity=f"unit-{W1}")
        assert await _reason(world, request) is FleetReason.WORKER_EXISTS
        same_key = WorkerPen(W2, worker.key)
        request = await world.registration(same_key)
        assert await _reason(world, request) is FleetReason.WORKER_EXISTS
        taken = WorkerPen(W1)
        request = await world.registration(taken, evidence_identity="another")
        with pytest.raises(FleetRefusal, match=f"^worker '{W1}' is already registered$"):
            await world.service.register(request)


async def test_a_proxy_key_does_not_register_as_a_worker() -> None:
    async with fleet_world() as world:
        request = await world.registration(WorkerPen(W1, world.proxy.key))
        assert await _reason(world, request) is FleetReason.KEY_MISMATCH


async def test_a_new_registration_fences_the_older_session() -> None:
    async with fleet_world() as world:
        old = WorkerPen(W1)
        await world.register(old)
        new = WorkerPen(W1, old.key)
        assert (await world.register(new)).session_epoch == 2
        with pytest.raises(FleetRefusal) as caught:
            await world.beat(old)
        assert caught.value.reason is FleetReason.SESSION_STALE


async def test_the_same_key_keeps_its_lease_and_a_new_key_ends_it() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        await world.register(worker)
        assert (await world.service.worker(W1)).lease_id == lease.lease_id
        restarted = WorkerPen(W1)
        await world.register(restarted)
        view = await world.service.worker(W1)
        assert (view.lease_id, view.work, view.state) == (None, "idle", "available")
        assert (await world.beat(restarted, lease)).stop_leases == (lease.lease_id,)


async def test_enrolment_is_idempotent_and_never_changes_a_key() -> None:
    async with fleet_world() as world:
        await world.enrol()
        worker = WorkerPen(W1)
        await world.register(worker)
        for name, key in (
            ("proxy-1", SigningKey.generate()),  # the name has a key
            ("proxy-2", world.proxy.key),  # the key has a name
            ("proxy-3", worker.key),  # the key is a worker's
            ("proxy-4", world.launcher),  # the key is a launcher's
        ):
            request = wire.EnrolKeyRequest(name=name, public_key=public(key))
            with pytest.raises(FleetRefusal) as caught:
                await world.service.enrol_proxy("alice", request)
            assert caught.value.reason is FleetReason.ENROLMENT_CONFLICT
