"""What ends when nobody can tell how much time has passed, and what is left as it is.

The whole way, with a clock that was set back, is in tests/fleet/test_clock_set_back.py.
"""

from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import WorkerRecord
from tests.fakes.ledger_world import LedgerWorld, attested, ulid

W1 = ulid(1001)
END = 3_000


def lost(now_unix_ms: int) -> Decision:
    world = LedgerWorld()
    world.do(world.manager.register(attested(W1, until_unix_ms=END), 2_000))
    return world.do(world.manager.end_what_time_bounds(1, now_unix_ms))


def test_evidence_that_did_not_end_yet_ends_now() -> None:
    (worker,) = lost(END - 1).records
    assert isinstance(worker, WorkerRecord)
    assert worker.proof.attested_until_unix_ms == END - 1


def test_a_worker_whose_evidence_ended_before_is_left_as_it_is() -> None:
    assert lost(END + 1).records == ()
