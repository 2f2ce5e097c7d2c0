"""Profiles compared by `policy diff` and read by the linter: dropped demands, raised limits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palyra_egress.facts import AttestedFacts
from palyra_egress.policy.compile import CompiledPolicy, compile_policy
from palyra_egress.policy.decide import decide
from palyra_egress.policy.policy_diff import ChangeKind, diff_policies
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.requirements import Requirements
from palyra_egress.request import EgressRequest
from palyra_egress.verdict import Limits
from tests.egress.policy.policy_text import policy, rules
from tests.egress.policy.test_judge_properties import ANSWERS, MODES, REQUESTS, RULES
from tests.egress.policy.test_profiles import LIMITS, RULE, profile
from tests.egress.policy.test_requirements import FACTS, REQUIREMENTS, A, B


def _kinds(before: str, after: str, more: str = "", more_before: str = "") -> list[str]:
    old, new = profile(before, more_before), profile(after, more)
    return [change.kind.value for change in diff_policies(old.spec, new.spec)]


LEVEL, ENOUGH = "requires: {binding_level: enforced}", "requires: {binding_level: observed}"
ONE = f"requires: {{image_digests: ['sha256:{A}']}}"
TWO = f"requires: {{image_digests: ['sha256:{A}', 'sha256:{B}']}}"


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (LEVEL, "limits: {}", ["newly_allowed"]),
        (LEVEL, ENOUGH, ["newly_allowed"]),
        (ONE, TWO, ["newly_allowed"]),
        ("limits: {}", LEVEL, ["newly_refused"]),
        (ENOUGH, LEVEL, ["newly_refused"]),
        (TWO, ONE, ["newly_refused"]),
        (ONE, LEVEL, ["newly_allowed", "newly_refused"]),
        ("requires: {image_digests: []}", ONE, ["newly_allowed"]),
        ("limits: {bytes_per_hour: 5}", "limits: {bytes_per_hour: 6}", ["loosened"]),
        ("limits: {bytes_per_hour: 5}", "limits: {}", ["loosened"]),
        ("limits: {}", "limits: {request_bytes_per_hour: 6}", ["tightened"]),
        ("limits: {requests_per_minute: 5}", "limits: {requests_per_minute: 4}", ["tightened"]),
        ("limits: {max_request_bytes: 5}", "limits: {max_request_bytes: 6}", ["loosened"]),
        ("limits: {max_request_bytes: 5}", "limits: {}", ["loosened"]),
        (f"{ONE}, limits: {{bytes_per_hour: 5}}", "limits: {}", ["newly_allowed", "loosened"]),
    ],
)
def test_dropping_a_demand_or_raising_a_limit_is_a_widening(
    before: str, after: str, kinds: list[str]
) -> None:
    found = _kinds(before, after)
    assert list(dict.fromkeys(found)) == kinds


def test_a_newly_allowed_line_says_for_whom_it_was_before() -> None:
    old, new = profile(LEVEL), profile(ENOUGH)
    told = diff_policies(old.spec, new.spec)[0].what
    assert "requires binding_level at least observed" in told
    assert "in the old policy only for workers with binding_level at least enforced" in told


@settings(max_examples=300)
@given(
    RULES.filter(len),
    MODES,
    MODES,
    st.none() | REQUIREMENTS,
    st.none() | REQUIREMENTS,
    LIMITS,
    LIMITS,
    st.lists(REQUESTS, min_size=1, max_size=20),
    ANSWERS,
    FACTS,
)
def test_whoever_is_newly_allowed_was_told_as_a_widening(
    items: list[str],
    old_mode: str,
    new_mode: str,
    before: Requirements | None,
    after: Requirements | None,
    old_limits: Limits,
    new_limits: Limits,
    asked: list[EgressRequest],
    answers: list[str],
    facts: AttestedFacts,
) -> None:
    def made(mode: str, requires: Requirements | None, limits: Limits) -> CompiledPolicy:
        plain = rules(*items, more=mode)
        (only,) = plain.spec.profiles
        own = replace(only, requires=requires, limits=limits)
        return compile_policy(replace(plain.spec, profiles=(own,)), plain.digest)

    old, new = made(old_mode, before, old_limits), made(new_mode, after, new_limits)
    kinds = {change.kind for change in diff_policies(old.spec, new.spec)}
    for one in asked:
        known = replace(one, requester=replace(one.requester, facts=facts))
        was = decide(old, known, answers, 5000).allowed
        now = decide(new, known, answers, 5000).allowed
        if now and not was:
            assert kinds & {ChangeKind.NEWLY_ALLOWED, ChangeKind.NEWLY_OBSERVED}, one
        if was and not now:
            assert ChangeKind.NEWLY_REFUSED in kinds, one


def test_dropping_a_demand_of_a_policy_that_observes_is_told_as_that_too() -> None:
    kinds = _kinds(LEVEL, "limits: {}", "mode: observe\n", "mode: observe\n")
    assert kinds == ["newly_allowed", "newly_observed"]
    assert (
        _kinds("limits: {}", LEVEL, "mode: observe\n", "mode: observe\n") == ["newly_refused"] * 2
    )


def test_a_rate_of_the_file_is_compared() -> None:
    assert _kinds("limits: {}", "limits: {}", "", "limits: {bytes_per_hour: 7}\n") == ["loosened"]


def _codes(given_policy: CompiledPolicy) -> set[str]:
    return {finding.code for finding in lint(given_policy, 0)}


def test_the_linter_finds_demands_nobody_meets_and_limits_nobody_reaches() -> None:
    assert "requirement_unmeetable" in _codes(profile("requires: {image_digests: []}"))
    assert "requirement_unmeetable" not in _codes(profile(ONE))
    more = "limits: {requests_per_minute: 5, max_response_bytes: 5}\n"
    assert "limit_never_reached" in _codes(profile("limits: {requests_per_minute: 5}", more))
    assert "limit_never_reached" not in _codes(profile("limits: {requests_per_minute: 4}", more))
    assert "limit_never_reached" not in _codes(profile("limits: {max_response_bytes: 9}", more))
    in_rule = RULE.replace("]}]", "], limits: {bytes_per_hour: 9}}]")
    assert "limit_never_reached" in _codes(profile("limits: {bytes_per_hour: 9}", rule=in_rule))
    assert "profile_allows_nothing" in _codes(profile("limits: {bytes_per_hour: 0}"))
    empty = policy(f"{RULE}profiles: {{p: {{rules: []}}, q: [r]}}\n")
    assert "profile_empty" in _codes(empty)
