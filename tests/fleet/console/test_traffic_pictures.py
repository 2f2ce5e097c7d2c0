"""What the pages show of traffic: the same numbers as the fleet keeps, drawn and as tables."""

from palyra_fleet.console import charts
from palyra_fleet.console.traffic import STEP_MS, STEPS, of_policy, picture
from palyra_fleet.signals.traffic import TrafficBook
from palyra_fleet.wire.traffic_models import (
    MINUTE_MS,
    RuleVerdicts,
    TrafficReport,
    WorkerBytes,
)

BEGAN = 10_000 * STEP_MS
ONE, TWO = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"
POLICY, OTHER = "a" * 64, "b" * 64


def test_a_step_is_as_high_as_its_decisions_with_what_was_refused_below() -> None:
    book = TrafficBook(BEGAN)
    said = {"allowed": {"egress.allowed": 3}, "refused": {"egress.host_denied": 1}}
    book.reported("p", TrafficReport(since_unix_ms=BEGAN, **said), BEGAN)
    said = {"allowed": {"egress.allowed": 5}, "refused": {"egress.host_denied": 1}}
    later = BEGAN + STEP_MS + MINUTE_MS
    book.reported("p", TrafficReport(since_unix_ms=BEGAN, **said), later)
    drawn = picture(book.view(later, "pqr"), later)
    assert [(one.allowed, one.refused) for one in drawn.steps] == [(2, 0), (3, 1)]
    assert [(bar.tone, bar.height) for bar in drawn.decisions.bars] == [
        ("bad", charts.HEIGHT / 4),
        ("good", charts.HEIGHT * 3 / 4),
        ("good", charts.HEIGHT / 2),
    ]
    assert drawn.decisions.bars[1].y == 0
    assert drawn.decisions.bars[2].x == round(charts.WIDTH / STEPS * (STEPS - 1), 2)
    assert drawn.decisions.bars[0].title.startswith("3 allowed, 1 refused from ")
    assert (drawn.allowed, drawn.refused, drawn.reasons) == (5, 1, (("egress.host_denied", 1),))


def test_a_worker_at_two_proxies_is_one_and_the_busiest_stands_first() -> None:
    book = TrafficBook(BEGAN)
    both = (WorkerBytes(worker_id=ONE, bytes_out=5), WorkerBytes(worker_id=TWO, bytes_in=7))
    book.reported("p", TrafficReport(since_unix_ms=BEGAN, workers=both), BEGAN)
    alone = (WorkerBytes(worker_id=ONE, bytes_in=4),)
    book.reported("q", TrafficReport(since_unix_ms=BEGAN, workers=alone), BEGAN)
    found = picture(book.view(BEGAN, "pqr"), BEGAN).workers
    assert [(one.worker_id, one.bytes_out, one.bytes_in) for one in found] == [
        (ONE, 5, 4),
        (TWO, 0, 7),
    ]


def test_without_any_proxy_there_is_a_picture_of_nothing() -> None:
    drawn = picture(TrafficBook(BEGAN).view(BEGAN, ()), BEGAN)
    assert (drawn.proxies, drawn.decisions.bars, drawn.steps) == (0, (), ())


def test_verdicts_of_a_rule_are_added_up_over_the_proxies_that_have_this_policy() -> None:
    book = TrafficBook(BEGAN)
    for name, digest in (("p", POLICY), ("q", POLICY), ("r", OTHER)):
        rules = (RuleVerdicts(rule_id="open", allowed=2, refused=1),)
        told = TrafficReport(since_unix_ms=BEGAN, policy_digest=digest, rules=rules)
        book.reported(name, told, BEGAN)
    found = of_policy(book.view(BEGAN, "pqr"), POLICY)
    assert (found.proxies, found.others, found.whole) == (2, 1, True)
    assert (found.by_rule["open"].allowed, found.by_rule["open"].refused) == (4, 2)
