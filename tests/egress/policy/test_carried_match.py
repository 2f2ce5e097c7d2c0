"""What `precheck` carries to `decide` saves time and changes nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import NOTHING_FORBIDDEN, decide, precheck
from palyra_egress.request import CanonicalHost, EgressRequest
from palyra_egress.service import EgressProxyPolicyService
from palyra_egress.verdict import NeedsResolution
from tests.egress.policy.policy_text import PUBLIC, request, rules
from tests.egress.policy.test_judge_properties import ANSWERS, MODES, REQUESTS, RULES

ASKED = request("GET https://a.x.test/")
MIRROR = "hosts: [a.x.test], private: [10.0.0.0/8]"


def needs(policy: CompiledPolicy, asked: EgressRequest, now_unix_ms: int) -> NeedsResolution:
    answer = precheck(policy, asked, now_unix_ms)
    assert isinstance(answer, NeedsResolution)
    return answer


@given(
    RULES,
    MODES,
    REQUESTS,
    ANSWERS,
    st.sampled_from([0, 999, 1000, 5000]),
    st.sampled_from([0, 999, 1000, 5000]),
    st.sampled_from([NOTHING_FORBIDDEN, frozenset({("203.0.114.1", 443), ("10.0.0.1", 80)})]),
)
def test_the_verdict_is_the_same_with_and_without_it(
    items: list[str],
    mode: str,
    asked: EgressRequest,
    answers: list[str],
    first_ms: int,
    then_ms: int,
    forbidden: frozenset[tuple[str, int]],
) -> None:
    policy = rules(*items, more=mode)
    judged = precheck(policy, asked, first_ms, forbidden)
    if isinstance(judged, NeedsResolution):
        slow = decide(policy, asked, answers, then_ms, forbidden)
        assert decide(policy, asked, answers, then_ms, forbidden, judged) == slow


@given(RULES, RULES, REQUESTS, REQUESTS, ANSWERS)
def test_another_policys_or_another_requests_note_changes_nothing(
    items: list[str],
    others: list[str],
    asked: EgressRequest,
    other: EgressRequest,
    answers: list[str],
) -> None:
    policy, swapped = rules(*items), rules(*others)
    judged = precheck(policy, asked, 0)
    if isinstance(judged, NeedsResolution):
        for now_policy, now_asked in ((swapped, asked), (policy, other)):
            slow = decide(now_policy, now_asked, answers, 0)
            assert decide(now_policy, now_asked, answers, 0, judged=judged) == slow


def test_a_rule_that_expires_between_the_two_no_longer_allows() -> None:
    policy = rules("hosts: [a.x.test], until: 1970-01-01T00:00:01Z")
    judged = needs(policy, ASKED, 999)
    assert decide(policy, ASKED, PUBLIC, 999, judged=judged).allowed
    assert decide(policy, ASKED, PUBLIC, 1000, judged=judged).reason.short == "rule_expired"


def test_a_policy_that_is_replaced_between_the_two_is_the_one_that_judges() -> None:
    service = EgressProxyPolicyService(rules("hosts: [a.x.test]"))
    judged = service.precheck(ASKED, 0)
    assert isinstance(judged, NeedsResolution)
    service.replace_policy(rules("hosts: [b.x.test]"))
    assert service.decide(ASKED, PUBLIC, 0, judged).reason.short == "host_not_allowed"
    service.replace_policy(None)
    assert service.decide(ASKED, PUBLIC, 0, judged).reason.short == "policy_not_loaded"


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "169.254.169.254", "::", "x"])
def test_addresses_are_judged_as_without_it(address: str) -> None:
    policy = rules(MIRROR)
    judged = needs(policy, ASKED, 0)
    forbidden = frozenset({("10.0.0.7", 443)})
    assert not decide(policy, ASKED, [address], 0, forbidden, judged).allowed


@pytest.mark.parametrize("match", [None, "a match", 7, ()])
def test_something_else_in_its_place_is_not_believed(match: object) -> None:
    policy = rules("hosts: [b.x.test]")
    judged = NeedsResolution(CanonicalHost("a.x.test"), 443, match)
    assert not decide(policy, ASKED, PUBLIC, 0, judged=judged).allowed


def test_it_is_no_part_of_what_an_answer_says() -> None:
    judged = needs(rules("hosts: [a.x.test]"), ASKED, 0)
    assert judged == replace(judged, match=None)
    assert "match" not in repr(judged)
