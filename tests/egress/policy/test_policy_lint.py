"""Mirror of policy/policy_lint.py, rule_lint.py and ignore_reader.py."""

import pytest

from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.findings import Finding
from palyra_egress.policy.lint_codes import IGNORABLE, LINT, Level, LintCode
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.values import read_time_unix_ms
from tests.egress.policy.policy_text import POLICIES, policy, rules

NOW = read_time_unix_ms("2026-11-23T00:00:00Z") or 0
PAPERS = "owner: o, reason: w"
TEST = "tests: [{profile: p, request: GET https://none.test/, expect: deny}]\n"


def found(*items: str, more: str = "") -> list[tuple[str, str | None]]:
    """Codes with their subjects, in the order of the file."""
    given_policy = rules(*(f"{item}, {PAPERS}" for item in items), more=TEST + more)
    return [(finding.code, finding.subject) for finding in lint(given_policy, NOW)]


RULES = [
    (["hosts: [a.test]"], []),
    (["hosts: [a.test], until: 2026-11-23T00:00:00Z"], ["rule_expired", "profile_allows_nothing"]),
    (["hosts: [a.test], until: 2026-12-23T00:00:00Z"], ["rule_expires_soon"]),
    (["hosts: [a.test], until: 2026-12-23T00:00:01Z"], []),
    (["hosts: [a.test], methods: []"], ["allows_nothing", "profile_allows_nothing"]),
    (["hosts: [a.test], limits: {max_response_bytes: 0}", "hosts: [b.test]"], ["allows_nothing"]),
    (["hosts: [a.test]", "hosts: [.a.test]"], ["rule_shadowed"]),
    (["hosts: [a.test]", "hosts: [a.test]"], ["rule_shadowed"]),
    (["hosts: [.a.test]", "hosts: [a.test, '*.a.test'], paths: [/x/**]"], ["rule_shadowed"]),
    (["hosts: [a.test], paths: [/x]", "hosts: [a.test], paths: [/x/**]"], ["rule_shadowed"]),
    (["hosts: [a.test], paths: [/x/**]", "hosts: [a.test], paths: [/x/*, /y]"], []),
    (["hosts: [a.test]", "hosts: [.a.test], until: 2030-01-01T00:00:00Z"], []),
    (["hosts: [a.test], methods: [PUT]", "hosts: [.a.test]"], []),
    (["hosts: [a.test], observe: true", "hosts: [.a.test]"], ["observe_left_on"]),
    (
        ["hosts: [a.test]", "hosts: [a.test], limits: {max_request_bytes: 9}"],
        ["rule_unreachable"],
    ),
    (["hosts: [a.test], limits: {max_request_bytes: 9}", "hosts: [.a.test]"], []),
    (["hosts: ['*.a.test'], methods: [GET, PUT]"], ["over_broad"]),
    (["hosts: ['*.a.test'], methods: [GET, PUT], paths: [/x/**]"], []),
    (["hosts: ['*.a.test'], methods: [GET, PUT], paths: [/**]"], ["over_broad"]),
    (["hosts: ['*.github.io']"], ["public_suffix"]),
    (["hosts: [me.github.io]"], []),
    (["hosts: ['*.me.github.io']"], []),
    (["hosts: [.googleapis.com]"], ["public_suffix"]),
    (["hosts: ['*.github.io'], acknowledge: [wide_host]"], ["wide_host"]),
    (["hosts: ['*.com'], acknowledge: [wide_host]"], ["wide_host"]),
    (["hosts: [a.test], private: [10.0.0.0/16]"], ["private_range"]),
    (["hosts: [a.test], private: [10.0.0.0/15]"], ["wide_private_range"]),
    (["hosts: [a.test], private: ['fd00::/48']"], ["private_range"]),
    (["hosts: [a.test], private: ['fd00::/40']"], ["wide_private_range"]),
]


@pytest.mark.parametrize(("items", "codes"), RULES)
def test_what_a_rule_may_not_mean_is_found(items: list[str], codes: list[str]) -> None:
    assert sorted(code for code, _ in found(*items)) == sorted(codes)


def _codes(text: str) -> set[tuple[str, str | None]]:
    return {(finding.code, finding.subject) for finding in lint(policy(text), NOW)}


FILES = [
    ("", ("nothing_allowed", None)),
    ("rules: [{id: r, hosts: [a.test]}]\n", ("rule_unused", "r")),
    ("rules: [{id: r, hosts: [a.test]}]\n", ("rule_unowned", "r")),
    ("rules: [{id: r, hosts: [a.test]}]\n", ("no_reason", "r")),
    ("deny: [{id: d, hosts: [a.test]}]\n", ("no_reason", "d")),
    ("mode: observe\n", ("observe_left_on", None)),
    ("rules: []\n", ("no_tests", None)),
    (
        "rules: [{id: r, hosts: [x.a.test]}]\ndeny: [{id: d, hosts: [.a.test]}]\n",
        ("rule_denied", "r"),
    ),
    (
        "rules: [{id: r, hosts: [.a.test]}]\ndeny: [{id: d, hosts: [x.a.test]}]\n",
        ("deny_overlaps_rule", "d"),
    ),
    (
        "rules: [{id: r, hosts: [a.test]}]\nprofiles: {p: [r], q: []}\n",
        ("profile_empty", "q"),
    ),
    (
        "rules: [{id: r, hosts: [a.test]}]\ndeny: [{id: d, hosts: [a.test]}]\nprofiles: {p: [r]}\n",
        ("profile_allows_nothing", "p"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_what_a_file_may_not_mean_is_found(text: str, expected: tuple[str, str | None]) -> None:
    assert expected in _codes(text)


def _ignoring(ignore: str) -> list[Finding]:
    return list(
        lint(
            rules(
                f"hosts: [a.test], observe: true, {PAPERS}",
                more=f"{TEST}lint: {{ignore: [{ignore}]}}\n",
            ),
            NOW,
        )
    )


def test_an_ignore_with_reason_and_date_silences_its_finding_and_keeps_the_reason() -> None:
    ignore = "{code: observe_left_on, rule: r0, reason: until May, until: 2027-05-01T00:00:00Z}"
    [finding] = _ignoring(ignore)
    assert finding.ignored == "until May" and not finding.counts


@pytest.mark.parametrize(
    ("ignore", "codes"),
    [
        (
            "{code: observe_left_on, reason: w, until: 2026-11-23T00:00:00Z}",
            ["observe_left_on", "ignore_expired"],
        ),
        (
            "{code: rule_unused, reason: w, until: 2027-11-23T00:00:00Z}",
            ["observe_left_on", "ignore_unused"],
        ),
        (
            "{code: observe_left_on, profile: p, reason: w, until: 2027-11-23T00:00:00Z}",
            ["observe_left_on", "ignore_unused"],
        ),
    ],
)
def test_an_ignore_that_has_expired_or_matches_nothing_is_a_finding(
    ignore: str, codes: list[str]
) -> None:
    findings = _ignoring(ignore)
    assert sorted(finding.code for finding in findings) == sorted(codes)
    assert all(finding.counts for finding in findings)


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        ("{code: rule_unusde, reason: w, until: 2027-11-23T00:00:00Z}", "mean 'rule_unused'?"),
        ("{code: ignore_expired, reason: w, until: 2027-11-23T00:00:00Z}", "can be ignored"),
        ("{code: rule_unused, until: 2027-11-23T00:00:00Z}", "has no 'reason'"),
        ("{code: rule_unused, reason: w}", "has no 'until'"),
        ("{code: rule_unused, reason: w, until: soon}", "expected a time"),
        (
            "{code: rule_unused, rule: r9, reason: w, until: 2027-11-23T00:00:00Z}",
            "no rule has the id 'r9'",
        ),
        (
            "{code: rule_unused, profile: q, reason: w, until: 2027-11-23T00:00:00Z}",
            "no profile is called 'q'",
        ),
        ("rule_unused", "an ignore is the text 'rule_unused'"),
    ],
)
def test_an_ignore_that_means_nothing_refuses_the_file(ignore: str, words: str) -> None:
    with pytest.raises(PolicyFileError, match=words.replace("?", r"\?")):
        _ignoring(ignore)


def test_every_code_has_a_row_and_only_findings_about_ignores_cannot_be_ignored() -> None:
    assert set(LINT) == set(LintCode)
    fixed = {code.value for code in LintCode} - set(IGNORABLE)
    assert fixed == {"ignore_expired", "ignore_unused"}
    assert Level.ERROR not in {row.level for row in LINT.values()}


def test_a_policy_of_two_thousand_rules_is_linted_without_comparing_each_with_each() -> None:
    many = rules(*(f"hosts: [h{number}.test], {PAPERS}" for number in range(2000)), more=TEST)
    assert lint(many, NOW) == ()


def test_the_page_about_the_commands_lists_every_code_as_the_table_has_it() -> None:
    page = (POLICIES.parent / "docs" / "policy-commands.md").read_text()
    for code, row in LINT.items():
        assert f"| `{code.value}` | {row.level.value} | {row.title} | {row.advice} |\n" in page
