"""Evidence of violations through the service, on both stores: accepted once, in order, for ever."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import RECEIPT_TYPE, VIOLATION_TYPE, seal
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.placement_models import OrderKind
from tests.fakes.fleet_world import FleetWorld, ProxyPen, WorkerPen, fleet_world, public
from tests.fakes.ledger_world import ulid
from tests.fakes.memory_fleet_store import MemoryFleetStore

W1 = ulid(1)


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FleetWorld]:
    sqlite = request.param == "sqlite"
    store = SqliteFleetStore(tmp_path / "state") if sqlite else MemoryFleetStore()
    async with fleet_world(store) as world:
        yield world


async def _leased(world: FleetWorld) -> tuple[WorkerPen, wire.LeaseAnswer]:
    worker = WorkerPen(W1)
    await world.register(worker)
    return worker, await world.lease(worker, "run-1")


async def _refused(world: FleetWorld, envelope: Any, proxy_id: str = "proxy-1") -> FleetReason:
    with pytest.raises(FleetRefusal) as caught:
        await world.service.accept_violation(proxy_id, envelope)
    return caught.value.reason


async def test_a_quarantining_violation_does_everything_at_once(world: FleetWorld) -> None:
    worker, lease = await _leased(world)
    envelope = world.proxy.violation(lease, world.clock())
    answer = await world.service.accept_violation("proxy-1", envelope)
    assert (answer.accepted_seq, answer.outcome, answer.duplicate) == (1, "quarantined", False)
    view = await world.service.worker(W1)
    assert (view.state, view.lease_id) == ("quarantined", None)
    assert view.quarantine_reason == "egress.address_private"
    (kept,) = await world.service.violations(W1, 10)
    assert view.quarantine_evidence_sha256 == kept.evidence_sha256 == world.proxy.last_sha256
    reasons = [e.reason for e in await world.service.events(0, 100)]
    assert reasons[-2:] == ["worker.lease_revoked", "worker.quarantined_by_egress"]
    kinds = [order.kind for order in await world.service.orders(W1, 0, 0)]
    assert kinds == [OrderKind.STOP_LEASE, OrderKind.QUARANTINED]
    assert (await world.beat(worker, lease)).stop_leases == (lease.lease_id,)
    assert await world.service.verify_events() == len(reasons)


async def test_the_same_evidence_twice_answers_the_same(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    envelope = world.proxy.violation(lease, world.clock())
    first = await world.service.accept_violation("proxy-1", envelope)
    events = await world.service.events(0, 100)
    again = await world.service.accept_violation("proxy-1", envelope)
    assert again == first.model_copy(update={"duplicate": True})
    assert await world.service.events(0, 100) == events


async def test_more_evidence_against_the_quarantined_is_recorded(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    outcomes = [
        (
            await world.service.accept_violation(
                "proxy-1", world.proxy.violation(lease, world.clock())
            )
        ).outcome
        for _ in range(3)
    ]
    assert outcomes == ["quarantined", "already_quarantined", "already_quarantined"]
    assert len(await world.service.violations(None, 10)) == 3


async def test_evidence_counts_after_the_lease_ended(world: FleetWorld) -> None:
    worker, lease = await _leased(world)
    await world.complete(worker, lease)
    envelope = world.proxy.violation(lease, world.clock())
    answer = await world.service.accept_violation("proxy-1", envelope)
    assert answer.outcome == "quarantined"
    assert (await world.service.worker(W1)).state == "quarantined"


async def test_evidence_about_a_forgotten_worker_is_recorded(world: FleetWorld) -> None:
    worker, lease = await _leased(world)
    await world.complete(worker, lease)
    await world.service.evict("alice", W1, "gone")
    envelope = world.proxy.violation(lease, world.clock())
    answer = await world.service.accept_violation("proxy-1", envelope)
    assert answer.outcome == "recorded"


async def test_strikes_quarantine_at_the_limit_within_the_window(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    strike = {"consequence": "strike", "strike_limit": 3, "strike_window_ms": 1_000}
    outcomes = []
    for after_ms in (0, 999, 1_000, 1_001):  # the first is out of the window of the third
        envelope = world.proxy.violation(lease, world.clock() + after_ms, **strike)
        outcomes.append((await world.service.accept_violation("proxy-1", envelope)).outcome)
    assert outcomes == ["struck", "struck", "struck", "quarantined"]


async def test_a_strike_without_a_limit_quarantines(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    envelope = world.proxy.violation(lease, world.clock(), consequence="strike")
    answer = await world.service.accept_violation("proxy-1", envelope)
    assert answer.outcome == "quarantined"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seq": 2}, FleetReason.EVIDENCE_GAP),
        ({"previous_sha256": "9" * 64}, FleetReason.EVIDENCE_CHAIN),
        ({"proxy_id": "proxy-2"}, FleetReason.EVIDENCE_FOREIGN),
    ],
)
async def test_evidence_that_does_not_fit_is_refused(
    world: FleetWorld, changes: dict[str, Any], reason: FleetReason
) -> None:
    _, lease = await _leased(world)
    envelope = world.proxy.violation(lease, world.clock(), **changes)
    assert await _refused(world, envelope) is reason
    assert (await world.service.worker(W1)).state == "assigned"
    assert await world.service.violations(None, 10) == ()


@pytest.mark.parametrize(
    "changes",
    [{"worker_id": ulid(2)}, {"lease_id": ulid(2)}, {"fence": 2}],
    ids=lambda changes: next(iter(changes)),
)
async def test_evidence_about_a_lease_never_given_harms_nobody_and_holds_back_nothing(
    world: FleetWorld, changes: dict[str, Any]
) -> None:
    _, lease = await _leased(world)
    other = WorkerPen(ulid(2))
    await world.register(other)
    envelope = world.proxy.violation(lease, world.clock(), **changes)
    answer = await world.service.accept_violation("proxy-1", envelope)
    assert (answer.accepted_seq, answer.outcome, answer.duplicate) == (1, "recorded", False)
    states = [(view.worker_id, view.state) for view in await world.service.workers()]
    assert states == [(W1, "assigned"), (ulid(2), "available")]
    event = (await world.service.events(0, 100))[-1]
    assert (event.reason, event.worker_id) == ("worker.violation_recorded", None)
    assert event.detail["why"] == "not_bound"
    assert event.detail["claimed_reason"] == "egress.address_private"
    again = await world.service.accept_violation("proxy-1", envelope)
    assert again == answer.model_copy(update={"duplicate": True})
    later = world.proxy.violation(lease, world.clock())
    answer = await world.service.accept_violation("proxy-1", later)
    assert (answer.accepted_seq, answer.outcome) == (2, "quarantined")


async def test_evidence_about_a_lease_never_given_is_no_strike(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    strike = {"consequence": "strike", "strike_limit": 2, "strike_window_ms": 10_000}
    outcomes = []
    for changes in ({"fence": 9}, {}, {"fence": 9}, {}):
        envelope = world.proxy.violation(lease, world.clock(), **strike, **changes)
        outcomes.append((await world.service.accept_violation("proxy-1", envelope)).outcome)
    assert outcomes == ["recorded", "struck", "recorded", "quarantined"]


async def test_an_alarm_tells_of_evidence_about_leases_never_given_for_an_hour(
    world: FleetWorld,
) -> None:
    _, lease = await _leased(world)
    assert world.service.alarms() == {}
    for _ in range(2):
        envelope = world.proxy.violation(lease, world.clock(), fence=9)
        await world.service.accept_violation("proxy-1", envelope)
    alarm = world.service.alarms()["evidence"]
    assert alarm.startswith("2 pieces of evidence name a lease this fleet never gave")
    assert W1 not in alarm
    assert set(world.service.health().values()) == {"ok"}
    world.clock.forward(3_599_999)
    assert world.service.alarms() != {}
    world.clock.forward(1)
    assert world.service.alarms() == {}


async def test_after_unbound_evidence_gaps_forgeries_and_rewrites_are_still_refused(
    world: FleetWorld,
) -> None:
    _, lease = await _leased(world)
    unbound = world.proxy.violation(lease, world.clock(), fence=9)
    forger = ProxyPen("proxy-1", SigningKey.generate())
    forged = forger.violation(lease, world.clock(), fence=9)
    assert await _refused(world, forged) is FleetReason.EVIDENCE_SIGNATURE
    await world.service.accept_violation("proxy-1", unbound)
    gap = world.proxy.violation(lease, world.clock(), fence=9, seq=3)
    assert await _refused(world, gap) is FleetReason.EVIDENCE_GAP
    rewritten = world.proxy.violation(lease, world.clock(), fence=8, seq=1)
    assert await _refused(world, rewritten) is FleetReason.EVIDENCE_REORDERED
    loose = world.proxy.violation(lease, world.clock(), fence=9, seq=2, previous_sha256="9" * 64)
    assert await _refused(world, loose) is FleetReason.EVIDENCE_CHAIN


async def test_a_proxy_learns_how_far_the_fleet_holds_its_chain(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    assert await world.service.evidence_chain("proxy-1") == wire.EvidenceChain(
        seq=0, last_sha256="0" * 64
    )
    for changes in ({}, {"fence": 9}):
        envelope = world.proxy.violation(lease, world.clock(), **changes)
        await world.service.accept_violation("proxy-1", envelope)
    held = await world.service.evidence_chain("proxy-1")
    assert held == wire.EvidenceChain(seq=2, last_sha256=world.proxy.last_sha256)
    with pytest.raises(FleetRefusal) as refused:
        await world.service.evidence_chain("proxy-9")
    assert refused.value.reason is FleetReason.EVIDENCE_PROXY_UNKNOWN


async def test_other_content_under_a_used_number_is_refused(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    strike = {"consequence": "strike", "strike_limit": 9, "strike_window_ms": 1}
    for _ in range(2):
        envelope = world.proxy.violation(lease, world.clock(), **strike)
        await world.service.accept_violation("proxy-1", envelope)
    rewritten = world.proxy.violation(lease, world.clock(), seq=1, previous_sha256="0" * 64)
    assert await _refused(world, rewritten) is FleetReason.EVIDENCE_REORDERED


async def test_forged_evidence_is_refused(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    forger = ProxyPen("proxy-1", SigningKey.generate())
    envelope = forger.violation(lease, world.clock())
    assert await _refused(world, envelope) is FleetReason.EVIDENCE_SIGNATURE
    signature = envelope.signatures[0].model_copy(update={"keyid": world.proxy.key.thumbprint})
    dressed_up = envelope.model_copy(update={"signatures": (signature,)})
    assert await _refused(world, dressed_up) is FleetReason.EVIDENCE_SIGNATURE
    assert await _refused(world, envelope, "proxy-9") is FleetReason.EVIDENCE_PROXY_UNKNOWN
    nonsense = seal(world.proxy.key, VIOLATION_TYPE, b"[]")
    assert await _refused(world, nonsense) is FleetReason.EVIDENCE_SIGNATURE
    other_type = seal(world.proxy.key, RECEIPT_TYPE, b"{}")
    assert await _refused(world, other_type) is FleetReason.EVIDENCE_SIGNATURE


async def test_every_proxy_has_a_chain_of_its_own(world: FleetWorld) -> None:
    _, lease = await _leased(world)
    second = ProxyPen("proxy-2")
    request = wire.EnrolKeyRequest(name="proxy-2", public_key=public(second.key))
    await world.service.enrol_proxy("alice", request)
    for pen in (world.proxy, second, world.proxy):
        envelope = pen.violation(lease, world.clock())
        await world.service.accept_violation(pen.name, envelope)
    foreign = world.proxy.violation(lease, world.clock())
    assert await _refused(world, foreign, "proxy-2") is FleetReason.EVIDENCE_SIGNATURE


async def test_evidence_the_store_did_not_take_can_be_sent_again() -> None:
    store = MemoryFleetStore()
    async with fleet_world(store) as world:
        _, lease = await _leased(world)
        envelope = world.proxy.violation(lease, world.clock())
        store.fail_next = StoreFailed("the disk is full", ambiguous=False)
        assert await _refused(world, envelope) is FleetReason.STORE_UNAVAILABLE
        answer = await world.service.accept_violation("proxy-1", envelope)
        assert (answer.outcome, answer.duplicate) == ("quarantined", False)


async def test_evidence_of_a_proxy_that_was_taken_back_is_refused_from_then_on() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(ulid(101))
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        evidence = world.proxy.violation(lease, world.clock())
        await world.service.take_back("alice", "proxy", world.proxy.name, "stolen")
        with pytest.raises(FleetRefusal) as caught:
            await world.service.accept_violation(world.proxy.name, evidence)
        assert caught.value.reason is FleetReason.EVIDENCE_PROXY_UNKNOWN
        (shown,) = await world.service.workers()
        assert (shown.admission, shown.lease_id) == ("active", None)
        with pytest.raises(FleetRefusal) as caught:
            world.service.view(world.proxy.name)
        assert caught.value.reason is FleetReason.EVIDENCE_PROXY_UNKNOWN
