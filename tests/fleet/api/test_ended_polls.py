"""Calls that wait end with what let them in: the worker's key, the worker, the proxy's enrolment.

Each would be answered with nothing after 30 s. That it is refused says that it ended before.
"""

from collections.abc import AsyncIterator

import pytest

from palyra_fleet.client import FleetProblem, WorkerClient
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.placement_models import OrderKind
from palyra_fleet.wire.policy_models import PolicyStanding
from tests.fakes.fleet_world import WorkerPen
from tests.fakes.ledger_world import ulid
from tests.fakes.remote_world import RemoteWorld, remote_world
from tests.fakes.until import until

WAIT_MS = 30_000
REFUSED = (401, "api.proof_refused")


@pytest.fixture
async def world() -> AsyncIterator[RemoteWorld]:
    async with remote_world() as served:
        yield served


async def _waiting(world: RemoteWorld, worker_id: str, number: int) -> None:
    await until(
        f"{number} wait for orders",
        lambda: len(world.service._desk._waiting.get(worker_id, ())) == number,
    )


async def _end_of(call: object) -> tuple[int, str]:
    with pytest.raises(FleetProblem) as refused:
        await call  # type: ignore[misc]
    return refused.value.status, refused.value.reason


async def test_a_poll_under_a_key_that_was_replaced_ends_and_that_of_the_new_key_goes_on(
    world: RemoteWorld,
) -> None:
    host, (_, proxy) = await world.worker_host(), await world.proxy_host()
    old, new = WorkerPen(ulid(201)), WorkerPen(ulid(201))
    await world.register(host, old, proxy)
    async with host.as_worker(old.key) as before, host.as_worker(new.key) as after:
        under_old = spawn(before.orders(0, WAIT_MS), "under the old key")
        await _waiting(world, old.worker_id, 1)
        await world.register(host, new, proxy)
        under_new = spawn(after.orders(0, WAIT_MS), "under the new key")
        assert await _end_of(under_old) == REFUSED
        await _waiting(world, old.worker_id, 1)
        await world.register(host, new, proxy)  # newer evidence of the same key ends nothing
        assert not under_new.done()
        await world.service.quarantine("alice", new.worker_id, "why")
        (order,) = await under_new
        assert order.kind is OrderKind.QUARANTINED


async def test_what_is_ordered_after_a_key_was_replaced_does_not_reach_it(
    world: RemoteWorld,
) -> None:
    """Both happen before the call that waits has a turn."""
    old, new = WorkerPen(ulid(202)), WorkerPen(ulid(202))
    await world.fleet.register(old)
    async with WorkerClient(world.server.socket_path, old.key) as client:
        poll = spawn(client.orders(0, WAIT_MS), "under the old key")
        await _waiting(world, old.worker_id, 1)
        registration = await world.fleet.registration(new)
        first = spawn(world.service.register(registration), "new key")
        second = spawn(world.service.quarantine("alice", new.worker_id, "why"), "quarantine")
        assert await _end_of(poll) == REFUSED
        await first
        await second


async def test_a_poll_of_a_worker_that_is_forgotten_ends(world: RemoteWorld) -> None:
    worker = WorkerPen(ulid(203))
    await world.fleet.register(worker)
    async with WorkerClient(world.server.socket_path, worker.key) as client:
        poll = spawn(client.orders(0, WAIT_MS), "of the evicted")
        await _waiting(world, worker.worker_id, 1)
        await world.service.evict("alice", worker.worker_id, "gone")
        assert await _end_of(poll) == REFUSED


@pytest.mark.parametrize("verb", ["quarantine", "ban"])
async def test_who_is_confined_is_told_at_once(world: RemoteWorld, verb: str) -> None:
    worker = WorkerPen(ulid(204))
    await world.fleet.register(worker)
    async with WorkerClient(world.server.socket_path, worker.key) as client:
        poll = spawn(client.orders(0, WAIT_MS), "of the confined")
        await _waiting(world, worker.worker_id, 1)
        await getattr(world.service, verb)("alice", worker.worker_id, "why")
        assert [order.kind for order in await poll] == [OrderKind.QUARANTINED]


async def test_a_poll_under_evidence_that_counts_no_more_ends(world: RemoteWorld) -> None:
    """A quarantined worker showed a new key, and was quarantined again."""
    worker, candidate = WorkerPen(ulid(205)), WorkerPen(ulid(205))
    await world.fleet.register(worker)
    await world.service.quarantine("alice", worker.worker_id, "why")
    await world.fleet.register(candidate)
    async with WorkerClient(world.server.socket_path, candidate.key) as client:
        (last,) = await client.orders(0, WAIT_MS)
        poll = spawn(client.orders(last.seq, WAIT_MS), "of the candidate")
        await _waiting(world, worker.worker_id, 1)
        await world.service.quarantine("alice", worker.worker_id, "again")
        assert await _end_of(poll) == REFUSED


async def test_a_proxy_that_is_taken_back_waits_for_no_question(world: RemoteWorld) -> None:
    host, proxy = await world.proxy_host()
    standing = PolicyStanding(
        policy_digest="a" * 64, name="policy.yaml", mode="enforce", loaded_at_unix_ms=1, rules=1
    )
    async with host.as_proxy() as client:
        poll = spawn(client.next_question(standing, 10_000), "questions")
        await until(
            "it waits", lambda: world.service._policies.heard_at_unix_ms(proxy.name) is not None
        )
        await world.service.take_back("alice", "proxy", proxy.name, "stolen")
        assert await _end_of(poll) == REFUSED
