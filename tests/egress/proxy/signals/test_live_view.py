"""The live view keeps a bounded row for each worker, and nothing for strangers."""

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.signals.live_view import MAX_VERDICTS, MAX_WORKERS, LiveView
from palyra_egress.proxy.signals.signals import Signals
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester


def who(number: int = 0) -> Requester:
    return Requester(f"worker-{number}", f"lease-{number}", "test")


def test_bytes_and_verdicts_stand_under_their_worker() -> None:
    view = LiveView()
    view.decided(Reason.ALLOWED, who(), None, 5)
    view.passed("worker-0", Direction.OUT, 3)
    view.passed("worker-0", Direction.IN, 7)
    view.passed("worker-1", Direction.IN, 1)
    shown = view.workers["worker-0"].shown("worker-0", 2, blocked=False)
    assert (shown["bytes_out"], shown["bytes_in"], shown["connections"]) == (3, 7, 2)
    assert shown["verdicts_by_reason"] == {"egress.allowed": 1}
    assert view.workers["worker-1"].bytes_in == 1


def test_only_the_last_verdicts_are_kept_and_all_are_counted() -> None:
    view = LiveView()
    for at in range(MAX_VERDICTS + 5):
        view.decided(Reason.HOST_NOT_ALLOWED, who(), None, at)
    row = view.workers["worker-0"]
    assert [one.at_unix_ms for one in row.verdicts] == list(range(5, MAX_VERDICTS + 5))
    assert row.reasons[Reason.HOST_NOT_ALLOWED] == MAX_VERDICTS + 5


def test_the_workers_that_did_nothing_for_longest_are_forgotten_first() -> None:
    view = LiveView()
    for number in range(MAX_WORKERS):
        view.passed(f"worker-{number}", Direction.IN, 1)
    view.passed("worker-0", Direction.IN, 1)
    view.passed("one more", Direction.IN, 1)
    assert len(view.workers) == MAX_WORKERS
    assert "worker-0" in view.workers and "worker-1" not in view.workers


def test_a_stranger_is_counted_and_has_no_row() -> None:
    signals = Signals()
    signals.refused_early(Reason.NO_IDENTITY, None, "01J", 1)
    assert signals.counts.decisions == {Reason.NO_IDENTITY: 1}
    assert not signals.live.workers
