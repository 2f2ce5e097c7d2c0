"""Mirror of policy/replay.py and policy/recorded.py."""

import pytest

from palyra_egress.audit.chain import AuditFields
from palyra_egress.policy.recorded import (
    MAX_TARGET,
    Answer,
    NotJudgeable,
    Recorded,
    judge_again,
    read_recorded,
)
from palyra_egress.policy.replay import replay
from tests.egress.policy.policy_text import rules
from tests.egress.policy.recorded_traffic import early, entry

OLD = rules("hosts: [a.test], methods: [GET, POST]", "hosts: [b.test]")
OBSERVING = rules("hosts: [a.test], observe: true")


def test_nothing_changes_under_the_policy_that_was_in_force() -> None:
    texts = ["GET https://a.test/x?q=1", "POST https://a.test/", "PUT https://a.test/"]
    texts += ["CONNECT b.test:443", "GET https://c.test/", "GET https://a.test:444/"]
    found = replay([entry(OLD, text) for text in texts], OLD)
    assert (found.groups, found.same, found.broken) == ((), 6, 0)


def test_what_would_break_comes_first_and_equal_changes_are_counted_together() -> None:
    new = rules("hosts: [a.test]", "hosts: [c.test]")
    texts = ["GET https://c.test/"] * 3 + ["POST https://a.test/", "GET https://b.test/"] * 2
    found = replay([entry(OLD, text) for text in texts], new)
    told = [(group.target, group.breaks, group.opens, n) for group, n in found.groups]
    assert told == [
        ("GET https://b.test:443/", True, False, 2),
        ("POST https://a.test:443/", True, False, 2),
        ("GET https://c.test:443/", False, True, 3),
    ]
    assert found.broken == 4 and found.same == 0
    assert str(found.groups[0][0].before) == "allowed"
    assert str(found.groups[1][0].after) == "refused method_not_allowed"
    assert found.groups[1][0].after.rule_id == "r0"
    assert str(found.groups[2][0].after) == "allowed if its addresses pass"


def test_each_request_is_judged_at_its_own_time_with_its_own_addresses() -> None:
    until = rules("hosts: [a.test], until: 1970-01-01T00:00:10Z, private: [10.0.0.0/8]")
    entries = [
        entry(until, "GET https://a.test/", resolved=["10.0.0.1"], at=9_000),
        entry(until, "GET https://a.test/", at=11_000),
    ]
    assert replay(entries, until).same == 2
    [(group, _)] = replay(entries, rules("hosts: [a.test]", "hosts: [b.test]")).groups[:1]
    assert str(group.after) == "refused private_target"


def test_what_was_observed_and_is_refused_now_breaks() -> None:
    found = replay([entry(OBSERVING, "POST https://a.test/")], rules("hosts: [a.test]"))
    [(group, _)] = found.groups
    assert group.breaks and str(group.before) == "observed method_not_allowed"


def test_a_refusal_for_another_reason_is_told_and_breaks_nothing() -> None:
    found = replay([entry(OLD, "PUT https://a.test/")], rules("hosts: [b.test]"))
    [(group, _)] = found.groups
    assert not group.breaks and not group.opens
    assert str(group.after) == "refused host_not_allowed"


def test_another_profile_can_take_the_place_of_the_recorded_one() -> None:
    entries = [entry(OLD, "GET https://a.test/", profile="gone")]
    assert replay(entries, OLD).same == 1
    assert replay(entries, OLD, "p").groups[0][0].opens


def _changed(**fields: str | int | None) -> AuditFields:
    return {**entry(OLD, "GET https://a.test/"), **fields}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (early(), NotJudgeable.EARLY),
        (_changed(reason="egress.rate_limited", effect="deny"), NotJudgeable.OUTSIDE),
        (_changed(reason="egress.quarantined", effect="deny"), NotJudgeable.OUTSIDE),
        (_changed(reason="egress.proxy_target", effect="deny"), NotJudgeable.OUTSIDE),
        (_changed(target="https://a.test:443/" + "x" * MAX_TARGET), NotJudgeable.CUT),
        (_changed(target="https://a b/"), NotJudgeable.UNREADABLE),
        (_changed(target=None), NotJudgeable.UNREADABLE),
        (_changed(reason="egress.of_tomorrow"), NotJudgeable.UNREADABLE),
        (_changed(at_unix_ms=None), NotJudgeable.UNREADABLE),
        ({"kind": "verdict"}, NotJudgeable.UNREADABLE),
        ({"kind": "transfer"}, None),
        ({}, None),
    ],
)
def test_what_cannot_be_judged_again_is_counted_with_the_reason(
    fields: AuditFields, why: NotJudgeable | None
) -> None:
    assert read_recorded(fields) is why
    assert replay([fields], OLD).not_judged == ({} if why is None else {why: 1})


def test_an_ip_literal_is_judged_without_recorded_addresses() -> None:
    literal = rules("hosts: [203.0.114.7]")
    recorded = read_recorded(entry(literal, "GET https://203.0.114.7/"))
    assert isinstance(recorded, Recorded) and recorded.addresses == ()
    assert judge_again(literal, recorded).answer is Answer.ALLOWED
    assert judge_again(OLD, recorded).answer is Answer.REFUSED
