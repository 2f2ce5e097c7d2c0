"""Invariant 10: `kill -9` at any point loses nothing that was acknowledged, and breaks nothing.

Twenty times, or PALYRA_CRASH_ROUNDS times (`make crash`), a real process commits leases,
completions and quarantines to one state directory and is killed after a random number of
acknowledgements, wherever it is by then. Afterwards the state must open, hold every acknowledged
fact, verify its event chain, and never have given a fence twice.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.facts import Admission, WorkerRecord
from palyra_fleet.store.protocol import Snapshot
from palyra_fleet.store.sqlite import SqliteFleetStore

ROOT = Path(__file__).resolve().parents[3]
ROUNDS = int(os.environ.get("PALYRA_CRASH_ROUNDS", "20"))


def killed_after(state_dir: Path, number: int, lines: int) -> list[list[str]]:
    """What a child acknowledged until `kill -9`."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.crash.fleet_child", str(state_dir), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child:
        read = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        read += child.stdout.readlines()
    assert child.returncode == -9, read
    return [line.split() for line in read if line.endswith("\n")]


async def check(store: SqliteFleetStore, snapshot: Snapshot, said: list[list[str]]) -> None:
    workers = {r.worker_id: r for r in snapshot.records if isinstance(r, WorkerRecord)}
    for words in said:
        match words:
            case ["lease", lease_id, fence]:
                lease = await store.lease(lease_id)
                assert lease is not None
                assert lease.fence == int(fence) <= snapshot.highest_fence
            case ["done", lease_id]:
                lease = await store.lease(lease_id)
                assert lease is not None
                assert lease.status is LeaseStatus.COMPLETED
            case ["quarantined", worker_id, digest]:
                assert workers[worker_id].admission is Admission.QUARANTINED
                evidence = await store.evidence(digest)
                assert evidence is not None
                assert evidence.outcome == "quarantined"
            case ["asked", worker_id, release_id]:
                request = workers[worker_id].release_request
                assert request is None or request.release_id == release_id
                assert request is None or workers[worker_id].confined
            case ["released", worker_id]:
                assert workers[worker_id].admission is Admission.ACTIVE
            case ["epoch", epoch]:
                assert int(epoch) < snapshot.epoch
            case _:
                raise AssertionError(words)
    for record in snapshot.records:
        if isinstance(record, WorkerLease):
            assert workers[record.worker_id].last_fence == record.fence


@pytest.mark.crash
async def test_nothing_acknowledged_is_lost_by_kill_nine(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    points = random.Random(seed)
    state_dir = tmp_path / "state"
    fences: list[int] = []
    everything: list[list[str]] = []
    for number in range(1, ROUNDS + 1):
        said = killed_after(state_dir, number, points.randint(1, 40))
        everything += said
        fences += [int(words[2]) for words in said if words[0] == "lease"]
        store = SqliteFleetStore(state_dir)
        snapshot = await store.open(0)
        await check(store, snapshot, everything)
        asked = {words[1] for words in said if words[0] == "asked"}
        for record in snapshot.records:
            if isinstance(record, WorkerRecord) and record.worker_id in asked:
                assert record.confined == (record.release_request is not None)
        assert await store.verify_events() > 0
        await store.close()
    assert len(fences) == len(set(fences)), "a fence was given twice"
