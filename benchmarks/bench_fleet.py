"""What the fleet's ledger costs, and whether it stays flat as the fleet grows.

    python benchmarks/bench_fleet.py [SIZE ...]        (default 1000 100000; 1000000 takes minutes)

Prints per size: each command in memory per second with its p99, bytes of memory per worker, and
the time from start to ready on SQLite with the CPU time in it, and a snapshot: how long it takes,
its size, the memory of the process that makes it, and how long the loop, a heartbeat and a durable
grant wait meanwhile, beside how long they wait without one. Then durable leases per second through
the service, for one caller and for many at once (group commit). CPU time where the disk takes no
part, so that a busy machine does not change the answer.
"""

import asyncio
import gc
import hashlib
import itertools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import Decision, Record
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import GrantRequest, HeartbeatRequest
from tests.fakes.fleet_world import Clock, FleetWorld, WorkerPen, settings
from tests.fakes.ledger_world import SCOPE, attested, ulid

NOW = 1_800_000_000_000
SAMPLES = 2_000
DURABLE = 300
BESIDE_S = 3
BEATS = itertools.count(1)
GRANT = GrantRequest(run_id="r", tool_name="t", principal="p", egress_profile="e", ttl_ms=60_000)
BIG = WorkerFleetPolicy(
    max_workers=10**7,
    max_leases=10**7,
    leases_per_principal=10**7,
    storm_quarantines_per_minute=10**7,
)


def evidence(number: int) -> AttestationResult:
    key = hashlib.sha256(number.to_bytes(8)).digest()
    plain = attested(ulid(number), now_unix_ms=NOW, until_unix_ms=NOW + 3_600_000)
    return replace(plain, public_key=key, key_sha256=key.hex())


def do(manager: WorkerFleetManager, outcome: Outcome) -> Decision:
    assert isinstance(outcome, Decision), outcome
    manager.apply(outcome)
    return outcome


def filled(size: int) -> WorkerFleetManager:
    manager = WorkerFleetManager(BIG)
    for number in range(size):
        do(manager, manager.register(evidence(number), NOW))
    return manager


def timed(name: str, size: int, calls: Iterator[Callable[[], object]]) -> None:
    """Per call in CPU time; what makes the call is not counted."""
    took = []
    for call in calls:
        began = time.process_time_ns()
        call()
        took.append((time.process_time_ns() - began) / 1_000)
    took.sort()
    rate = 1_000_000 / statistics.fmean(took)
    print(f"  {name:22} {rate:10,.0f}/s   p99 {took[int(len(took) * 0.99)]:8.1f} us")


def commands(size: int) -> None:
    gc.collect()
    before = memory_bytes()
    manager = filled(size)
    print(f"{size:,} workers: {(memory_bytes() - before) / size:,.0f} bytes each")
    gc.freeze()
    step = max(1, size // SAMPLES)
    chosen = [ulid(number) for number in range(0, size, step)][:SAMPLES]
    new = iter(range(size, size + SAMPLES))
    timed("register", size, (_register(manager, number) for number in new))
    timed("heartbeat", size, (_heartbeat(manager, worker) for worker in chosen))
    timed("grant", size, (_grant(manager, n) for n, _ in enumerate(chosen)))
    places(manager, size)
    timed("lease", size, (_lease(manager, n, worker) for n, worker in enumerate(chosen)))
    timed("settle what is due", size, (lambda: do(manager, manager.reap(NOW)) for _ in chosen))
    half = len(chosen) // 2
    timed("complete", size, (_complete(manager, worker) for worker in chosen[:half]))
    timed("quarantine with lease", size, (_quarantine(manager, w) for w in chosen[half:]))
    gc.unfreeze()


def places(manager: WorkerFleetManager, size: int) -> None:
    """All wait; runs are placed, and declined."""
    for number in range(size):
        do(manager, manager.heartbeat(ulid(number), 1, 2, NOW, waits=True))
    rounds = range(min(SAMPLES, size))
    for number in rounds:
        _grant(manager, 5 * 10**6 + number)()
    timed("place", size, (_place(manager, number) for number in rounds))
    offers = tuple(manager.state.placing.offers.values())
    timed("decline", size, (_decline(manager, offer) for offer in offers))


def _place(manager: WorkerFleetManager, number: int) -> Callable[[], object]:
    run = f"run-{5 * 10**6 + number}"
    grant = manager.state.usable_grant(run, NOW)
    assert grant is not None
    order, offer_id = PlacementOrder(run, 60_000), ulid(6 * 10**6 + number)
    return lambda: do(manager, manager.place(order, grant.grant_id, offer_id, "alice", NOW))


def _decline(manager: WorkerFleetManager, offer: Offer) -> Callable[[], object]:
    return lambda: do(manager, manager.decline(offer.worker_id, 1, offer.offer_id, "why", NOW))


def _register(manager: WorkerFleetManager, number: int) -> Callable[[], object]:
    result = evidence(number)
    return lambda: do(manager, manager.register(result, NOW))


def _heartbeat(manager: WorkerFleetManager, worker: str) -> Callable[[], object]:
    return lambda: do(manager, manager.heartbeat(worker, 1, 1, NOW))


def _grant(manager: WorkerFleetManager, number: int) -> Callable[[], object]:
    end = NOW + 3_600_000
    grant = WorkerApprovalGrant(ulid(number), f"run-{number}", "tool", "who", "p", end, "alice")
    return lambda: do(manager, manager.create_grant(grant, "alice", NOW))


def _lease(manager: WorkerFleetManager, number: int, worker: str) -> Callable[[], object]:
    order = LeaseOrder(f"run-{number}", 60_000, (), SCOPE)

    def ask() -> None:
        grant = manager.state.usable_grant(order.run_id, NOW)
        assert grant is not None
        lease_id = ulid(10**7 + number)
        do(manager, manager.grant_lease(worker, 1, grant.grant_id, order, lease_id, "5" * 64, NOW))

    return ask


def _complete(manager: WorkerFleetManager, worker: str) -> Callable[[], object]:
    lease = manager.state.live_lease_of(worker)
    assert isinstance(lease, WorkerLease)
    return lambda: do(
        manager, manager.complete_lease(worker, 1, lease.lease_id, lease.fence, True, NOW)
    )


def _quarantine(manager: WorkerFleetManager, worker: str) -> Callable[[], object]:
    return lambda: do(manager, manager.quarantine(worker, "alice", "why", NOW))


def memory_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def start_to_ready(size: int, place: Path) -> None:
    store = SqliteFleetStore(place)
    await store.open(NOW)
    manager = WorkerFleetManager(BIG)
    for first in range(0, size, 5_000):
        records: list[Record] = []
        events = []
        for number in range(first, min(first + 5_000, size)):
            decision = do(manager, manager.register(evidence(number), NOW))
            records += decision.records
            events += decision.events
        await store.commit(Decision(NOW, records=tuple(records), events=tuple(events)))
    await store.close()
    del manager
    gc.collect()
    began, cpu_began = time.monotonic(), time.process_time()
    service = await FleetService.start(settings(place, BIG), Clock(NOW))
    cpu = time.process_time() - cpu_began
    print(f"  start to ready         {time.monotonic() - began:10.2f} s   ({cpu:.2f} s of CPU)")
    await snapshot(service, place)
    await service.close()


async def snapshot(service: FleetService, place: Path) -> None:
    """What one costs, and what the calls beside it wait."""
    alone = spawn(asyncio.sleep(BESIDE_S), "nothing")
    print(f"  waits alone            {await waits(service, alone)}")
    store_mib = mib_in(place)
    began = time.monotonic()
    saving = spawn(service.save_snapshot("alice", "benchmark"), "snapshot")
    beside = await waits(service, saving)
    took, saved = time.monotonic() - began, saving.result()
    memory_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"  waits beside snapshot  {beside}")
    print(
        f"  snapshot               {took:10.2f} s   {saved.size_bytes / 2**20:,.0f} MiB"
        f" of a store of {store_mib:,.0f} MiB, {memory_mib:,.0f} MiB of memory in its process"
    )


def mib_in(place: Path) -> float:
    return sum(one.stat().st_size for one in place.iterdir() if one.is_file()) / 2**20


async def waits(service: FleetService, work: asyncio.Task[Any]) -> str:
    """How long the loop, a heartbeat and a durable grant wait while `work` goes on: median, most.
    The worker that beats is the first."""
    took: dict[str, list[float]] = {"loop": [], "heartbeat": [], "grant": []}
    while not work.done():
        began = time.monotonic()
        await asyncio.sleep(0.001)
        took["loop"].append(time.monotonic() - began - 0.001)
        began = time.monotonic()
        await service.heartbeat(ulid(0), HeartbeatRequest(session_epoch=1, seq=next(BEATS)))
        took["heartbeat"].append(time.monotonic() - began)
        began = time.monotonic()
        await service.create_grant("alice", GRANT)
        took["grant"].append(time.monotonic() - began)
    await work
    return ", ".join(
        f"{name} {1_000 * statistics.median(one):.1f}/{1_000 * max(one):.1f} ms"
        for name, one in took.items()
    )


async def durable(place: Path) -> None:
    clock = Clock(NOW)
    service = await FleetService.start(settings(place, BIG), clock)
    world = FleetWorld(service, clock)
    await world.enrol()
    pens = [WorkerPen(ulid(number)) for number in range(DURABLE)]
    for pen in pens:
        await world.register(pen)
    for number in range(2 * DURABLE):
        await world.grant(f"run-{number}")
    began = time.monotonic()
    alone = [await world.ask(pen, f"run-{number}") for number, pen in enumerate(pens)]
    one = DURABLE / (time.monotonic() - began)
    await asyncio.gather(*(world.complete(pen, a) for pen, a in zip(pens, alone, strict=True)))
    began = time.monotonic()
    await asyncio.gather(
        *(world.ask(pen, f"run-{DURABLE + number}") for number, pen in enumerate(pens))
    )
    many = DURABLE / (time.monotonic() - began)
    print(f"durable leases: {one:,.0f}/s one after another, {many:,.0f}/s {DURABLE} at once")
    await service.close()


def main(sizes: list[int]) -> None:
    for size in sizes:
        commands(size)
        gc.collect()
        with tempfile.TemporaryDirectory() as place:
            asyncio.run(start_to_ready(size, Path(place) / "state"))
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(durable(Path(place) / "state"))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1_000, 100_000])
