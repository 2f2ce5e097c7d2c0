"""Every command in any order, a clock that moves both ways, restarts, restores, lost answers.

`LedgerMachine` holds the invariants after every step, by the numbers of specification 20, section
1: 1 one live lease per worker and run, grants spent once; 2 fences grow; 3 the confined hold
nothing; 4 the way out of quarantine; 5 the caps of a lease, counted from its latest grant or
renewal; 6 stale fences change nothing; 7 eligibility on request only; 8 the way back from stale and
orphaned (a session that goes on is none); 9 events with every change, chained; 10 a restart loses
nothing; 11 nothing revives. (12, the default admits nobody, is in test_service_registration.) Here
it is played on memory and on SQLite, where snapshots of any age are put back.
"""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from palyra_fleet.store.protocol import FleetStore
from palyra_fleet.store.restore import restore
from palyra_fleet.store.snapshot import save
from palyra_fleet.store.sqlite import SqliteFleetStore
from tests.fleet.ledger.ledger_machine import LedgerMachine
from tests.fleet.ledger.machine_base import PLAYED, rarely
from tests.fleet.ledger.transitions import COMMANDS


class SqliteLedgerMachine(LedgerMachine):
    """The same on SQLite, with real restarts."""

    snapshot: Path | None = None
    copies = 0

    def make_store(self) -> FleetStore:
        if not hasattr(self, "place"):
            self.place = tempfile.TemporaryDirectory()
        return SqliteFleetStore(Path(self.place.name) / "state")

    @rule(really=rarely)
    def a_snapshot_is_kept(self, really: bool) -> None:
        if really:
            self.copies += 1
            self.snapshot = Path(self.place.name) / f"snapshot-{self.copies}"
            save(Path(self.place.name) / "state", self.snapshot)

    @rule(lost=rarely, may_return=st.booleans(), ms=st.integers(1, 500))
    def an_older_snapshot_is_put_back(self, lost: bool, may_return: bool, ms: int) -> None:
        """2, 3, 4, 11 over a restore: nobody is freer, no fence comes twice, nothing goes on."""
        if self.snapshot is None:
            return
        before = self.manager.state
        state_dir = Path(self.place.name) / "state"
        self.run(self.store.close())
        if lost:
            (state_dir / "fleet.sqlite3").unlink()
        self.now = before.high_water_unix_ms + ms
        restore(state_dir, self.snapshot, self.now, replace=True, workers_may_return=may_return)
        self.store = self.make_store()
        self.load()
        after = self.manager.state
        self.events = self.run(self.store.verify_events())
        self.seen_ended |= set(self.all_leases)
        held = {worker_id for worker_id, w in after.workers.items() if w.confined}
        if not lost:
            assert {i for i, w in before.workers.items() if w.confined} <= held
            assert before.tombstones <= after.tombstones
        elif not may_return:
            assert held == set(after.workers)
        assert (after.leases, after.grants) == ({}, {})
        assert after.highest_fence > before.highest_fence
        assert all(w.proof.attested_until_unix_ms <= self.now for w in after.workers.values())
        self.command, self.before = "restore", dict(after.workers)
        self.last = None
        if lost:  # the same one once more, its successors lost again, would give the same fences
            self.snapshot = None

    def teardown(self) -> None:
        super().teardown()
        self.place.cleanup()


_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]

TestLedgerOnMemory = LedgerMachine.TestCase
TestLedgerOnMemory.settings = settings(
    max_examples=200, stateful_step_count=80, suppress_health_check=_QUIET
)
TestLedgerOnSqlite = SqliteLedgerMachine.TestCase
TestLedgerOnSqlite.settings = settings(
    max_examples=25, stateful_step_count=60, suppress_health_check=_QUIET
)


def test_every_command_is_one_that_the_machine_plays() -> None:
    """A new command has to be played here, or this fails."""
    files = ("ledger_machine.py", "machine_placing.py", "machine_reattesting.py")
    text = "".join(Path(__file__).with_name(name).read_text() for name in files)
    assert {name for name in COMMANDS if f'"{name}"' not in text} == set()
    assert PLAYED <= COMMANDS
