"""Two persons release a worker: over a restart, against further evidence, and who they are."""

from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.principals.book import PrincipalBook, token_sha256
from palyra_fleet.principals.desk import PrincipalDesk
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.principal_models import CreatePrincipal, Role
from palyra_fleet.wire.release_models import ReleaseRequestView
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world, settings
from tests.fakes.ledger_world import ulid

W1 = ulid(1)
POLICY = WorkerFleetPolicy(two_person_release=True)


async def _asked(world: FleetWorld) -> tuple[ReleaseRequestView, wire.LeaseAnswer]:
    """A worker that a violation stopped, and a request for its release; with the lease it had."""
    worker = WorkerPen(W1)
    await world.register(worker)
    await world.grant("run-1")
    lease = await world.ask(worker, "run-1")
    await world.service.accept_violation("proxy-1", world.proxy.violation(lease, world.clock()))
    await world.register(WorkerPen(W1))
    return await world.service.request_release("alice", W1, "the tool is mended"), lease


async def _approved(service: FleetService, asked: ReleaseRequestView) -> FleetReason | str:
    try:
        return (await service.approve_release("bob", asked.release_id, "seen")).state
    except FleetRefusal as refusal:
        return refusal.reason


async def test_a_request_and_its_approval_outlast_restarts(tmp_path: Path) -> None:
    kept = settings(tmp_path, POLICY)
    async with fleet_world(SqliteFleetStore(tmp_path), POLICY) as world:
        asked, _ = await _asked(world)
        clock = world.clock
    service = await FleetService.start(kept, clock)
    try:
        assert await service.release_requests() == (asked,)
        with pytest.raises(FleetRefusal, match="another person"):
            await service.approve_release("alice", asked.release_id, "it is me")
        assert await _approved(service, asked) == "available"
    finally:
        await service.close()
    service = await FleetService.start(kept, clock)
    try:
        assert await service.release_requests() == ()
        assert (await service.worker(W1)).admission == "active"
        assert await service.verify_events() > 0
    finally:
        await service.close()


async def test_further_evidence_voids_a_request() -> None:
    async with fleet_world(policy=POLICY) as world:
        asked, lease = await _asked(world)
        further = world.proxy.violation(lease, world.clock())
        answer = await world.service.accept_violation("proxy-1", further)
        assert answer.outcome == "already_quarantined"
        assert await world.service.release_requests() == ()
        assert await _approved(world.service, asked) is FleetReason.RELEASE_UNKNOWN
        again = await world.service.request_release("alice", W1, "seen as well")
        assert await _approved(world.service, again) == "available"


async def test_evidence_that_names_a_lease_of_nobody_voids_nothing() -> None:
    async with fleet_world(policy=POLICY) as world:
        asked, lease = await _asked(world)
        foreign = world.proxy.violation(lease, world.clock(), lease_id=ulid(99))
        answer = await world.service.accept_violation("proxy-1", foreign)
        assert answer.outcome == "recorded"
        assert await world.service.release_requests() == (asked,)


async def test_a_request_nobody_answers_ends_by_itself() -> None:
    async with fleet_world(policy=POLICY) as world:
        asked, _ = await _asked(world)
        world.clock.now_unix_ms = asked.expires_at_unix_ms
        await world.service.reap()
        assert await world.service.release_requests() == ()
        events = await world.service.recent_events(W1, 5)
        assert "worker.release_request_expired" in [event.reason for event in events]


@pytest.mark.parametrize("change", ["revoke", "rotate"])
async def test_what_somebody_asked_is_void_with_the_token_it_was_asked_with(
    change: str, tmp_path: Path
) -> None:
    async with fleet_world(policy=POLICY) as world:
        service = world.service
        book = PrincipalBook.open(tmp_path / "principals.json", token_sha256("first"))
        desk = PrincipalDesk(book, service.record_event, service.void_releases_of, world.clock)
        for name in ("alice", "bob"):
            asked_for = CreatePrincipal(name=name, roles=(Role.OPERATOR,), reason="why")
            await desk.create("operator", asked_for)
        asked, _ = await _asked(world)
        await getattr(desk, change)("operator", "bob", "left")
        assert await service.release_requests() == (asked,)
        await getattr(desk, change)("operator", "alice", "lost it")
        assert await service.release_requests() == ()
        last = (await service.recent_events(W1, 1))[0]
        assert (last.reason, last.actor) == ("worker.release_request_voided", "operator")
        assert await _approved(service, asked) is FleetReason.RELEASE_UNKNOWN


async def test_a_revocation_that_failed_halfway_voids_when_it_is_asked_for_again(
    tmp_path: Path,
) -> None:
    async with fleet_world(policy=POLICY) as world:
        service, recorded = world.service, world.service.record_event

        async def refuses(*_: object) -> None:
            raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, "the disk is full")

        book = PrincipalBook.open(tmp_path / "principals.json", token_sha256("first"))
        desk = PrincipalDesk(book, recorded, service.void_releases_of, world.clock)
        alice = CreatePrincipal(name="alice", roles=(Role.OPERATOR,), reason="why")
        await desk.create("operator", alice)
        asked, _ = await _asked(world)
        with pytest.raises(FleetRefusal, match="disk is full"):
            await replace(desk, record=refuses).revoke("operator", "alice", "left")
        assert await service.release_requests() == (asked,)
        with pytest.raises(FleetRefusal) as again:
            await desk.revoke("operator", "alice", "left")
        assert again.value.reason is FleetReason.PRINCIPAL_UNKNOWN
        assert await _approved(service, asked) is FleetReason.RELEASE_UNKNOWN
