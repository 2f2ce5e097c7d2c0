"""A rule approves what all of it fits, and nothing else."""

from dataclasses import fields, replace

import pytest

from palyra_fleet.leases.approval_rules import (
    ApprovalRule,
    ApprovalRules,
    Asker,
    RunAsked,
    pattern_fits,
)

RULE = ApprovalRule(
    rule_id="nightly",
    owner="platform",
    reason="builds",
    until_unix_ms=1_000,
    tools=("sh",),
    runs=("nightly-*",),
    profiles=("ci",),
    lease_ms=60_000,
    uses_per_hour=2,
    at_once=1,
    launchers=("local",),
    identities=("worker:*",),
    machines=("here",),
    artifact_digests=("a" * 64,),
)
ASKER = Asker("worker:1", "here", "local", "a" * 64)
ASKED = RunAsked("nightly-7", "sh", "ci")


def test_what_fits_in_everything_is_approved() -> None:
    assert RULE.misfit(ASKER, ASKED, 999) is None


@pytest.mark.parametrize(
    ("misfit", "asker", "asked", "now"),
    [
        ("until", ASKER, ASKED, 1_000),
        ("who.launchers", replace(ASKER, launcher="other"), ASKED, 0),
        ("who.launchers", replace(ASKER, launcher=None), ASKED, 0),
        ("who.identities", replace(ASKER, identity="worker"), ASKED, 0),
        ("who.machines", replace(ASKER, machine="there"), ASKED, 0),
        ("artifact_digests", replace(ASKER, artifact_digest_sha256="b" * 64), ASKED, 0),
        ("artifact_digests", replace(ASKER, artifact_digest_sha256=None), ASKED, 0),
        ("tools", ASKER, replace(ASKED, tool_name="bash"), 0),
        ("runs", ASKER, replace(ASKED, run_id="daily-7"), 0),
        ("profiles", ASKER, replace(ASKED, egress_profile="open"), 0),
    ],
)
def test_one_thing_that_does_not_fit_is_enough(
    misfit: str, asker: Asker, asked: RunAsked, now: int
) -> None:
    assert RULE.misfit(asker, asked, now) == misfit


def test_a_rule_that_lets_a_run_only_read_fits_no_other_run() -> None:
    reading = replace(RULE, read_only=True)
    assert reading.misfit(ASKER, ASKED, 0) == "read_only"
    assert reading.misfit(ASKER, replace(ASKED, read_only=True), 0) is None
    assert RULE.misfit(ASKER, replace(ASKED, read_only=True), 0) is None


def test_a_rule_that_says_nothing_of_reading_is_the_rule_of_an_earlier_release() -> None:
    """Its digest as it was before rules could say so: approvals that it gave are not taken back."""
    assert RULE.sha256 == "287b112c910fc24c164f11c52ceee0cacd2035da040f56d5169b79c225b43ca7"
    assert replace(RULE, read_only=True).sha256 != RULE.sha256


def test_a_rule_that_says_nothing_of_who_may_ask_fits_nobody() -> None:
    anybody = replace(RULE, launchers=(), identities=(), machines=())
    assert anybody.misfit(ASKER, ASKED, 0) == "who"


def test_what_a_rule_leaves_out_of_who_and_digests_does_not_matter() -> None:
    machine = replace(RULE, launchers=(), identities=(), artifact_digests=())
    assert machine.misfit(Asker("anything", "here"), ASKED, 0) is None


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("run-1", "run-1", True),
        ("run-1", "run-12", False),
        ("run-*", "run-", True),
        ("*", "anything", True),
        ("run-*-a", "run-x-a", True),
        ("run-*-a", "run-a", False),
        ("run-*-a", "run-x-b", False),
        ("ab*ba", "aba", False),
        ("RUN-*", "run-1", False),
        ("run.1", "run-1", False),
        ("", "", True),
    ],
)
def test_a_star_stands_for_any_signs_and_all_else_for_itself(
    pattern: str, value: str, fits: bool
) -> None:
    assert pattern_fits(pattern, value) is fits


OTHER: dict[str, object] = {
    "rule_id": "daily",
    "owner": "somebody else",
    "reason": "another",
    "until_unix_ms": 999,
    "tools": ("sh", "bash"),
    "runs": ("*",),
    "profiles": ("open",),
    "lease_ms": 1,
    "uses_per_hour": 3,
    "at_once": 2,
    "launchers": (),
    "identities": (),
    "machines": (),
    "artifact_digests": (),
    "read_only": True,
}


@pytest.mark.parametrize("changed", [one.name for one in fields(ApprovalRule)])
def test_a_rule_that_says_anything_else_is_another_rule(changed: str) -> None:
    mark = ApprovalRules.of([RULE], "f" * 64).mark(RULE, 0)
    other = replace(RULE, **{changed: OTHER[changed]})  # type: ignore[arg-type]
    assert not ApprovalRules.of([other], "f" * 64).still_says(mark)
    assert ApprovalRules.of([other, RULE], "e" * 64).still_says(mark)
    assert not ApprovalRules().still_says(mark)


def test_the_first_rule_of_the_file_that_fits_comes_first() -> None:
    rules = [replace(RULE, rule_id="b"), replace(RULE, rule_id="x", tools=()), RULE]
    found = ApprovalRules.of(rules, "f" * 64).fitting(ASKER, ASKED, 0)
    assert [one.rule_id for one in found] == ["b", "nightly"]
