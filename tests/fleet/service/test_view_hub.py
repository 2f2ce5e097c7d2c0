"""The view's order (no message comes after a newer one), and whose facts it tells."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.service import view_hub
from palyra_fleet.service.view_hub import ViewHub
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.view_models import ViewMessage
from tests.fakes.ledger_world import LedgerWorld, attested, ulid


async def test_changes_at_the_very_moment_of_a_tick_come_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_hub, "TICK_EVERY_S", 0.01)
    world, hub, loop = LedgerWorld(), ViewHub(1, 0), asyncio.get_running_loop()
    for number in (101, 102):
        world.register(ulid(number))
        world.do(world.manager.quarantine(ulid(number), "alice", "why", 3_000))

    def two_changes() -> None:
        for decision in world.decisions:
            hub.take(decision.records, 0)

    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1"))
    async with aclosing(stream):
        heard = [await anext(stream)]
        waiting = spawn(anext(stream), "next message")
        await asyncio.sleep(0)
        loop.call_later(0.011, two_changes)
        late_s = loop.time() + 0.03
        while loop.time() < late_s:
            pass  # the loop is busy: the tick and the changes are both due when it looks again
        heard.append(await waiting)
        heard += [await anext(stream) for _ in range(2)]
    assert [message.kind for message in heard] == ["snapshot", "block", "block", "tick"]
    assert [message.seq for message in heard] == [0, 1, 2, 2]


def _world() -> LedgerWorld:
    policy = WorkerFleetPolicy(trusted_capabilities=frozenset({"gpu", "net"}))
    return LedgerWorld(WorkerFleetManager(policy))


async def test_a_lease_is_told_with_its_workers_facts_and_again_when_they_change() -> None:
    world, hub, worker = _world(), ViewHub(1, 0), ulid(101)
    first = attested(worker, capabilities=("gpu", "net", "not-trusted"))
    world.do(world.manager.register(first, 2_000))
    lease = world.lease(worker, "run-1", 3_000)
    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1"))
    async with aclosing(stream):
        assert (await anext(stream)).kind == "snapshot"
        for decision in world.decisions:
            hub.take(decision.records, 1)
        bound = await anext(stream)
        (told,) = bound.bindings
        assert (bound.kind, told.lease_id, told.fence) == ("bind", lease.lease_id, lease.fence)
        assert told.facts.image_digest_sha256 == "a" * 64
        assert told.facts.build_digest_sha256 == "b" * 64
        assert told.facts.artifact_digest_sha256 == "c" * 64
        assert told.facts.capabilities == ("gpu", "net")
        assert told.facts.binding_level == "observed"
        less = attested(worker, capabilities=("net",), now_unix_ms=4_000)
        again = world.do(world.manager.register(less, 4_000, True))
        hub.take(again.records, 1)
        rebound = await anext(stream)
        (told_again,) = rebound.bindings
        assert (rebound.kind, told_again.fence) == ("bind", lease.fence)
        assert told_again.facts.capabilities == ("net",)
        other = attested(worker, now_unix_ms=5_000, binding_level=BindingLevel.ENFORCED)
        hub.take(world.do(world.manager.register(other, 5_000, True)).records, 1)
        assert (await anext(stream)).bindings[0].facts.binding_level == "enforced"


async def test_evidence_that_says_the_same_again_is_not_told_again() -> None:
    world, hub, worker = _world(), ViewHub(1, 0), ulid(101)
    world.register(worker)
    world.lease(worker, "run-1", 3_000)
    for decision in world.decisions:
        hub.take(decision.records, 1)
    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1"))
    async with aclosing(stream):
        before = await anext(stream)
        hub.take(world.register(worker, 4_000).records, 1)
        assert (await anext(stream)).kind == "tick"
    assert before.bindings[0].facts.binding_level == "observed"


async def test_a_lease_whose_worker_the_hub_does_not_know_is_bound_with_nothing_known() -> None:
    world, hub = _world(), ViewHub(1, 0)
    world.register(ulid(101))
    lease = world.lease(ulid(101), "run-1", 3_000)
    hub.take((lease,), 1)
    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1"))
    async with aclosing(stream):
        (bound,) = (await anext(stream)).bindings
    assert bound.facts == view_hub.UNKNOWN and bound.facts.binding_level == "none"


async def test_evidence_of_a_quarantined_worker_changes_no_facts() -> None:
    world, hub, worker = _world(), ViewHub(1, 0), ulid(101)
    world.register(worker)
    lease = world.lease(worker, "run-1", 3_000)
    for decision in world.decisions:
        hub.take(decision.records, 1)
    hub.take(world.do(world.manager.quarantine(worker, "alice", "why", 4_000)).records, 1)
    better = attested(worker, "new key", now_unix_ms=5_000, binding_level=BindingLevel.ENFORCED)
    hub.take(world.do(world.manager.register(better, 5_000)).records, 1)
    hub.take((lease,), 1)  # as if a late word came
    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1"))
    async with aclosing(stream):
        (bound,) = (await anext(stream)).bindings
    assert bound.facts.binding_level == "observed"


async def test_a_lease_is_told_with_its_workers_certificates_and_again_when_they_change() -> None:
    world, hub, worker = _world(), ViewHub(1, 0), ulid(101)
    world.register(worker)
    world.lease(worker, "run-1", 3_000)
    for decision in world.decisions:
        hub.take(decision.records, 1)
    known = {worker: ("a" * 64,)}
    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1"))
    async with aclosing(stream):
        before = await anext(stream)
        assert before.bindings[0].client_certificates_sha256 == ()
        hub.tell_certificates(lambda worker_id: known.get(worker_id, ()))
        told = await anext(stream)
        assert (told.kind, told.bindings[0].client_certificates_sha256) == ("bind", ("a" * 64,))
        hub.look_at_certificates()
        assert (await anext(stream)).kind == "tick"
        known[worker] = ()
        hub.look_at_certificates()
        assert (await anext(stream)).bindings[0].client_certificates_sha256 == ()


async def first_of(hub: ViewHub, heard: tuple[int, int] | None, count: int) -> list[str]:
    """The kinds of the first messages for a proxy that heard so much before."""
    stream = cast(AsyncGenerator[ViewMessage], hub.stream("proxy-1", heard))
    async with aclosing(stream):
        return [(await anext(stream)).kind for _ in range(count)]


async def test_a_proxy_that_was_away_for_a_moment_goes_on_where_it_was_and_else_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_hub, "TICK_EVERY_S", 0.01)
    world, hub = LedgerWorld(), ViewHub(7, 0)
    for number in (101, 102, 103):
        world.register(ulid(number))
        decision = world.do(world.manager.quarantine(ulid(number), "alice", "why", 3_000))
        hub.take(decision.records, 0)
    assert await first_of(hub, (7, 1), 3) == ["block", "block", "tick"]
    assert await first_of(hub, (7, 3), 2) == ["tick", "tick"]
    for elsewhere in (None, (6, 1), (8, 1), (7, 4), (7, 10**9)):
        assert await first_of(hub, elsewhere, 1) == ["snapshot"]
    while len(hub._recent) > 1:  # what it missed is known no more
        hub._recent.popleft()
    assert await first_of(hub, (7, 1), 1) == ["snapshot"]
    assert await first_of(hub, (7, 2), 1) == ["block"]
