"""What a proxy tells the fleet of its traffic: bounded, and in words that the fleet takes."""

from ulid import ULID

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.signals.signals import Signals
from palyra_egress.reasons import REASONS, Reason, ReasonClass
from palyra_egress.request import EgressRequest, Requester, RequestKind
from palyra_egress.verdict import Effect, Verdict
from palyra_fleet.wire.traffic_models import MAX_REASONS, MAX_RULES, MAX_WORKERS

WHO = Requester(str(ULID()), str(ULID()), "test")
REQUEST = EgressRequest(
    RequestKind.REQUEST, "GET", "https", "api.example", 443, "/", "", WHO, False
)


def verdict(reason: Reason, rule_id: str | None, policy: str = "a") -> Verdict:
    allows = REASONS[reason].reason_class is ReasonClass.ALLOWED
    effect = Effect.ALLOW if allows else Effect.DENY
    return Verdict(effect, reason, "0" * 64, policy * 64, rule_id=rule_id)


def decided(signals: Signals, reason: Reason, rule_id: str | None, policy: str = "a") -> None:
    signals.decided(verdict(reason, rule_id, policy), REQUEST, "01J", 1, 1)


def test_verdicts_are_told_by_reason_and_by_rule() -> None:
    signals = Signals()
    decided(signals, Reason.ALLOWED, "open")
    decided(signals, Reason.ALLOWED, "open")
    decided(signals, Reason.METHOD_NOT_ALLOWED, "open")
    decided(signals, Reason.HOST_NOT_ALLOWED, None)
    signals.refused_early(Reason.NO_IDENTITY, None, "01J", 1)
    told = signals.traffic(7, "a" * 64)
    assert told.since_unix_ms == 7
    assert told.allowed == {"egress.allowed": 2}
    assert told.refused == {
        "egress.method_not_allowed": 1,
        "egress.host_not_allowed": 1,
        Reason.NO_IDENTITY.value: 1,
    }
    assert [(one.rule_id, one.allowed, one.refused) for one in told.rules] == [("open", 2, 1)]
    assert told.policy_digest == "a" * 64


def test_another_policy_counts_its_rules_from_nothing() -> None:
    signals = Signals()
    decided(signals, Reason.ALLOWED, "open")
    decided(signals, Reason.HOST_DENIED, "shut", policy="b")
    told = signals.traffic(1, "b" * 64)
    assert told.policy_digest == "b" * 64
    assert [(one.rule_id, one.allowed, one.refused) for one in told.rules] == [("shut", 0, 1)]
    assert told.allowed == {"egress.allowed": 1}


def test_every_reason_there_is_fits_a_report() -> None:
    signals = Signals()
    for reason in Reason:
        decided(signals, reason, None)
    told = signals.traffic(1, "a" * 64)
    assert len(told.allowed) + len(told.refused) == len(Reason) <= MAX_REASONS


def test_only_the_busiest_rules_and_workers_are_told_and_how_many_were_left_out() -> None:
    signals = Signals()
    for number in range(MAX_RULES + 3):
        decided(signals, Reason.ALLOWED, f"Rule-{number}")
    decided(signals, Reason.ALLOWED, f"Rule-{MAX_RULES + 2}")
    ids = [str(ULID()) for _ in range(MAX_WORKERS + 2)]
    for number, worker_id in enumerate(ids):
        signals.passed(worker_id, Direction.OUT, number)
        signals.passed(worker_id, Direction.IN, 1)
    told = signals.traffic(1, "a" * 64)
    assert told.rules[0].rule_id == f"Rule-{MAX_RULES + 2}"
    assert (len(told.rules), told.rules_left_out) == (MAX_RULES, 3)
    assert [one.worker_id for one in told.workers] == ids[:1:-1]
    assert told.workers_left_out == 2
    assert told.bytes_in == MAX_WORKERS + 2


def test_before_there_is_a_policy_there_is_a_report() -> None:
    signals = Signals()
    decided(signals, Reason.POLICY_NOT_LOADED, None, policy="")
    assert signals.traffic(1, "").policy_digest is None


def test_a_policy_that_has_decided_nothing_yet_is_told_without_a_count() -> None:
    signals = Signals()
    decided(signals, Reason.ALLOWED, "open")
    told = signals.traffic(1, "b" * 64)
    assert (told.policy_digest, told.rules) == ("b" * 64, ())
