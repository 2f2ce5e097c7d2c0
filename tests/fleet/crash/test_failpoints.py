"""Killed at every named point: nothing acknowledged is lost, the chain holds, no fence comes twice.

One state directory lives through all rounds. The suite visits each point once; `make crash` plays
hundreds of rounds (PALYRA_CRASH_ROUNDS), each at a point and at a visit of it that chance names.
Kills at no named point: `test_kill_nine`.
"""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.store.failpoints import POINTS
from palyra_fleet.store.protocol import Snapshot, StateUnusable
from palyra_fleet.store.restore import restore
from palyra_fleet.store.retention import ARCHIVE, verify_archive
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.store.state_directory import RESTORING
from tests.fakes.fleet_world import START_UNIX_MS
from tests.fleet.crash.test_kill_nine import ROOT, check

ROUNDS = int(os.environ.get("PALYRA_CRASH_ROUNDS", "0")) or None
AT_START_ONLY = {"store.before_migration", "store.after_migration", "store.before_marker"}
POLICY = WorkerFleetPolicy()


def _plan(points: random.Random) -> list[tuple[str, int]]:
    """Point and visit of every round; pruning and restoring come when there is something there."""
    order = ["core.decided", *(p for p in POINTS if p not in AT_START_ONLY)]
    if ROUNDS is None:
        return [(point, points.randint(1, 12) if "." in point else 1) for point in order]
    usual = [p for p in order if not p.startswith(("restore.", "prune."))]
    often = itertools.cycle([*usual, *usual, *usual, *order])
    return [(next(often), points.randint(1, 40)) for _ in range(ROUNDS)]


def _killed_at(state: Path, number: int, point: str, visit: int) -> list[list[str]]:
    """What the child acknowledged until it killed itself there."""
    rare = point.startswith(("prune.", "restore.")) or point in AT_START_ONLY
    child = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fleet.crash.failpoint_child",
            str(state),
            str(number),
            point,
            str(1 if rare else visit),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    survived = "survived" in child.stdout
    assert child.returncode == (0 if survived else -9), (point, visit)
    assert not survived or point.startswith("prune."), f"{point} was never reached"
    return [line.split() for line in child.stdout.splitlines() if line != "survived"]


async def _opened(state: Path) -> tuple[SqliteFleetStore, Snapshot]:
    if (state / RESTORING).exists():
        with pytest.raises(StateUnusable, match="snapshot restore"):
            await SqliteFleetStore(state).open(0)
        newest = max(state.parent.glob("snapshot-*"), key=lambda path: path.stat().st_mtime)
        with pytest.raises(StateUnusable, match="--replace"):  # finishes the one that broke off
            restore(state, newest, START_UNIX_MS)
    store = SqliteFleetStore(state)
    return store, await store.open(0)


@pytest.mark.crash
async def test_killed_at_every_named_point_the_fleet_keeps_its_word(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    state = tmp_path / "state"
    said: list[list[str]] = []
    fences: list[int] = []
    for number, (point, visit) in enumerate(_plan(random.Random(seed)), start=1):
        new = _killed_at(state, number, point, visit)
        fences += [int(words[2]) for words in new if words[0] == "lease"]
        said += new
        store, snapshot = await _opened(state)
        kept = [w for w in said if w[0] not in {"lease", "done"}] if "prune" in point else said
        if point.startswith("prune."):
            said = kept  # leases that ended were meant to go
        await check(store, snapshot, said)
        assert await store.verify_events() > 0 or not said  # killed before its first decision
        await store.close()
        archived = verify_archive(state / ARCHIVE)
        assert archived.seq >= 0
        ledger = LedgerState()
        ledger.load(snapshot.records, snapshot.highest_fence, snapshot.high_water_unix_ms, 1_000)
        assert audit(ledger, POLICY) == ()
        assert max(fences, default=0) <= snapshot.highest_fence
    assert len(fences) == len(set(fences)), "a fence was given twice"


@pytest.mark.crash
@pytest.mark.parametrize("point", sorted(AT_START_ONLY))
async def test_killed_while_an_older_database_is_brought_forward_nothing_is_lost(
    tmp_path: Path, point: str
) -> None:
    from tests.fleet.store.test_migrations import old_state  # noqa: PLC0415 (its data)

    state = tmp_path / "state"
    old_state(state)
    _killed_at(state, 1, point, 1)
    store, snapshot = await _opened(state)
    assert await store.verify_events() > 10
    await store.close()
    assert len([r for r in snapshot.records if type(r).__name__ == "WorkerRecord"]) == 5


def test_production_code_sets_no_observer() -> None:
    """The seam does nothing unless a test's own process sets it."""
    package = ROOT / "palyra_fleet"
    setting = [
        path.name
        for path in package.rglob("*.py")
        if "observer" in path.read_text() and path.name != "failpoints.py"
    ]
    assert setting == []
