"""Mirror of policy/policy_diff.py, grants.py, coverage.py and minor_changes.py."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palyra_egress.destination.hostpattern import parse_pattern
from palyra_egress.policy import compared_fields
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.coverage import host_covers, hosts_overlap, path_covers, split_host
from palyra_egress.policy.decide import decide
from palyra_egress.policy.paths import parse_path_pattern, read_path
from palyra_egress.policy.policy_diff import ChangeKind, diff_policies
from palyra_egress.policy.schema import RuleSpec
from palyra_egress.request import EgressRequest
from tests.egress.policy.policy_text import policy, rules
from tests.egress.policy.test_judge_properties import ANSWERS, MODES, REQUESTS, RULES

DENY = st.sampled_from(
    [
        "",
        "deny: [{id: d, hosts: [.x.test]}]\n",
        "deny: [{id: d, hosts: [a.x.test, 10.0.0.0/8]}]\n",
        "deny: [{id: d, hosts: ['*.x.test']}, {id: e, hosts: [8.8.8.8]}]\n",
    ]
)
LIMITS = st.sampled_from(["", "limits: {max_response_bytes: 0}\n"])


def kinds(old: CompiledPolicy, new: CompiledPolicy) -> list[str]:
    """Each kind of change once, in the order in which they are told."""
    return list(dict.fromkeys(change.kind.value for change in diff_policies(old.spec, new.spec)))


def _widens(old: CompiledPolicy, new: CompiledPolicy) -> bool:
    return any(change.widens for change in diff_policies(old.spec, new.spec))


PAIRS = [
    # old rules, new rules, kinds of change
    (["hosts: [a.test]"], ["hosts: [a.test, b.test]"], ["newly_allowed"]),
    (["hosts: [a.test, b.test]"], ["hosts: [a.test]"], ["newly_refused"]),
    (["hosts: [.x.test]"], ["hosts: [x.test, '*.x.test']"], ["other"]),
    (["hosts: [x.test, '*.x.test']"], ["hosts: [.x.test]"], ["other"]),
    (["hosts: ['*.x.test']"], ["hosts: ['*.a.x.test', b.x.test]"], ["newly_refused"]),
    (["hosts: [a.test]"], ["hosts: [A.TEST]"], []),
    (["hosts: [10.0.0.0/8]"], ["hosts: [10.1.0.0/16]"], ["newly_refused"]),
    (
        ["hosts: [a.test], methods: [GET]"],
        ["hosts: [a.test], methods: [GET, POST]"],
        ["newly_allowed"],
    ),
    (["hosts: [a.test], paths: [/a/**]"], ["hosts: [a.test], paths: [/a/*]"], ["newly_refused"]),
    (["hosts: [a.test], paths: [/a/*]"], ["hosts: [a.test], paths: [/a/b]"], ["newly_refused"]),
    (["hosts: [a.test]"], ["hosts: [a.test], paths: [/**]"], ["other"]),
    (["hosts: [a.test], paths: [/a]"], ["hosts: [a.test]"], ["newly_allowed"]),
    (
        ["hosts: [a.test], until: 2027-01-01T00:00:00Z"],
        ["hosts: [a.test], until: 2028-01-01T00:00:00Z"],
        ["newly_allowed"],
    ),
    (["hosts: [a.test]"], ["hosts: [a.test], until: 2028-01-01T00:00:00Z"], ["newly_refused"]),
    (
        ["hosts: [a.test], private: [10.0.0.0/9, 10.128.0.0/9]"],
        ["hosts: [a.test], private: [10.0.0.0/8]"],
        ["other"],
    ),
    (
        ["hosts: [a.test]"],
        ["hosts: [a.test], private: [10.0.0.0/8]"],
        ["newly_allowed"],
    ),
    (["hosts: [a.test]"], ["hosts: [a.test], encoded_slash: true"], ["newly_allowed"]),
    (["hosts: [a.test]"], ["hosts: [a.test], observe: true"], ["newly_observed"]),
    (["hosts: [a.test], observe: true"], ["hosts: [a.test]"], ["newly_refused"]),
    (
        ["hosts: [a.test]"],
        ["hosts: [a.test], limits: {max_response_bytes: 0}"],
        ["newly_refused"],
    ),
    (
        ["hosts: [a.test], limits: {max_response_bytes: 1KiB}"],
        ["hosts: [a.test], limits: {max_response_bytes: 2KiB}"],
        ["loosened"],
    ),
    (
        ["hosts: [a.test], limits: {max_request_bytes: 1KiB}"],
        ["hosts: [a.test]"],
        ["loosened"],
    ),
    (
        ["hosts: [a.test]"],
        ["hosts: [a.test], limits: {max_request_bytes: 1KiB}"],
        ["tightened"],
    ),
    (
        ["hosts: [.x.test]", "hosts: [a.x.test], limits: {max_response_bytes: 1KiB}"],
        ["hosts: [.x.test]"],
        ["loosened"],
    ),
    (["hosts: [a.test], owner: a"], ["hosts: [a.test], owner: b"], ["other"]),
]


@pytest.mark.parametrize(("old", "new", "expected"), PAIRS)
def test_a_change_of_rules_is_told_as_what_it_means(
    old: list[str], new: list[str], expected: list[str]
) -> None:
    assert kinds(rules(*old), rules(*new)) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "deny: [{id: d, hosts: [b.test]}]", ["other"]),
        ("", "deny: [{id: d, hosts: [.a.test]}]", ["newly_refused"]),
        ("deny: [{id: d, hosts: [.a.test]}]", "", ["newly_allowed"]),
        ("deny: [{id: d, hosts: [x.a.test]}]", "deny: [{id: e, hosts: [.a.test]}]", "narrower"),
        ("mode: observe", "mode: enforce", ["newly_refused"]),
        ("mode: enforce", "mode: observe", ["newly_observed"]),
        ("violations: {quarantine: [foreign_credentials]}", "", ["loosened"]),
        ("", "violations: {quarantine: [foreign_credentials]}", ["tightened"]),
        (
            "violations: {strike: {on: [foreign_credentials], limit: 2, window: 1m}}",
            "violations: {strike: {on: [foreign_credentials], limit: 3, window: 1m}}",
            ["loosened"],
        ),
        ("limits: {requests_per_minute: 5}", "limits: {requests_per_minute: 6}", ["loosened"]),
        ("limits: {requests_per_minute: 5}", "", ["loosened"]),
        ("limits: {max_response_bytes: 5}", "limits: {max_response_bytes: 6}", ["loosened"]),
        ("", "limits: {requests_per_minute: 6}", ["tightened"]),
    ],
)
def test_a_change_of_the_file_is_told_as_what_it_means(
    old: str, new: str, expected: list[str] | str
) -> None:
    before = rules("hosts: [.a.test]", more=f"{old}\n")
    after = rules("hosts: [.a.test]", more=f"{new}\n")
    if expected == "narrower":
        assert not _widens(before, after) and "newly_refused" in kinds(before, after)
    else:
        assert kinds(before, after) == expected


def test_what_is_newly_allowed_comes_first_and_names_profile_method_place_and_line() -> None:
    old = rules("hosts: [a.test]", "hosts: [gone.test]")
    new = rules("hosts: [a.test, b.test], methods: [GET, PUT], until: 2027-01-01T00:00:00Z")
    changes = diff_policies(old.spec, new.spec)
    assert [change.kind for change in changes[:2]] == [ChangeKind.NEWLY_ALLOWED] * 2
    assert [change.what for change in changes[:2]] == [
        "p: PUT https://a.test:443/** (until 2027-01-01T00:00:00Z)",
        "p: GET,PUT https://b.test:443/** (until 2027-01-01T00:00:00Z)",
    ]
    assert changes[0].position.line == 4 and changes[0].subject == "r0"
    refused = [change.what for change in changes if change.kind is ChangeKind.NEWLY_REFUSED]
    assert "p: GET,HEAD https://gone.test:443/**" in refused
    assert any("in the new policy only until 2027-01-01T00:00:00Z" in what for what in refused)


def test_a_new_profile_of_an_observing_policy_is_a_widening() -> None:
    old = policy("mode: observe\nprofiles: {p: []}\n")
    assert _widens(old, policy("mode: observe\nprofiles: {p: [], q: []}\n"))


@given(RULES, MODES, DENY)
def test_a_policy_does_not_differ_from_itself(items: list[str], mode: str, deny: str) -> None:
    given_policy = rules(*items, more=mode + deny)
    assert diff_policies(given_policy.spec, given_policy.spec) == ()


@settings(max_examples=300)
@given(
    RULES, RULES, MODES, MODES, DENY, DENY, LIMITS, LIMITS, st.lists(REQUESTS, max_size=30), ANSWERS
)
def test_whatever_is_newly_allowed_is_a_widening_and_newly_refused_a_narrowing(
    old_items: list[str],
    new_items: list[str],
    old_mode: str,
    new_mode: str,
    old_deny: str,
    new_deny: str,
    old_limits: str,
    new_limits: str,
    asked: list[EgressRequest],
    answers: list[str],
) -> None:
    old = rules(*old_items, more=old_mode + old_deny + old_limits)
    new = rules(*new_items, more=new_mode + new_deny + new_limits)
    changes = {change.kind for change in diff_policies(old.spec, new.spec)}
    for request in asked:
        for now in (0, 5000):
            before = decide(old, request, answers, now).allowed
            after = decide(new, request, answers, now).allowed
            if after and not before:
                assert changes & {ChangeKind.NEWLY_ALLOWED, ChangeKind.NEWLY_OBSERVED}, request
            if before and not after:
                assert ChangeKind.NEWLY_REFUSED in changes, request


_SLASH = "encoded_slash: true, observe: true"


@given(RULES.filter(len), MODES, DENY)
@example([f"hosts: [a.x.test], methods: [GET], {_SLASH}", "hosts: [a.x.test]"], "", "")
def test_taking_a_rule_away_never_adds_a_grant(items: list[str], mode: str, deny: str) -> None:
    """Putting it back refuses nothing new, unless a rule only observed what it now judges."""
    whole = rules(*items, more=mode + deny).spec
    gone = whole.rules[-1].rule_id
    profiles = tuple(
        replace(profile, rule_ids=tuple(row for row in profile.rule_ids if row[0] != gone))
        for profile in whole.profiles
    )
    fewer = replace(whole, rules=whole.rules[:-1], profiles=profiles)
    assert ChangeKind.NEWLY_ALLOWED not in {c.kind for c in diff_policies(whole, fewer)}
    assert ChangeKind.NEWLY_REFUSED not in {c.kind for c in diff_policies(fewer, whole)} or (
        mode == "mode: observe\n" or any("observe: true" in i or "private" in i for i in items)
    )


@given(RULES, DENY.filter(len))
def test_adding_deny_rules_never_widens(items: list[str], deny: str) -> None:
    assert not _widens(rules(*items), rules(*items, more=deny))


def test_a_denied_host_is_not_told_as_a_looser_budget_of_the_rule_behind() -> None:
    items = ("hosts: [a.x.test], limits: {max_response_bytes: 9}", "hosts: [.x.test]")
    deny = "deny: [{id: d0, hosts: [a.x.test]}]\n"
    assert not _widens(rules(*items), rules(*items, more=deny))


_NAMES = ["x.test", "*.x.test", ".x.test", "a.x.test", "*.a.x.test", ".a.x.test", "ax.test"]
HOSTS = st.sampled_from([*_NAMES, "*.test", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3"])


@given(HOSTS, HOSTS)
def test_one_host_pattern_covers_another_exactly_if_every_host_says_so(
    wide: str, narrow: str
) -> None:
    names = ["x.test", "a.x.test", "b.a.x.test", "ax.test", "c.x.test", "test", "q.test"]

    def named(text: str) -> set[str]:
        given_policy = rules(f"hosts: ['{text}'], acknowledge: [wide_host]")
        index = given_policy.profiles["p"].index
        return {name for name in names if index.find_name(name)}

    one, other = parse_pattern(wide), parse_pattern(narrow)
    if host_covers(one, other):
        assert named(narrow) <= named(wide)
    elif one.addresses is None and other.addresses is None:
        assert not named(narrow) <= named(wide) or not named(narrow)
    if named(wide) & named(narrow):
        assert hosts_overlap(one, other)
    assert host_covers(one, one) and hosts_overlap(one, one)
    assert all(host_covers(one, part) for part in split_host(one))


PATHS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=0, max_size=3)
PATTERNS = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]), PATHS, st.sampled_from([[], ["**"], [""]])
)
FORMS = [
    "/" + "/".join(parts)
    for parts in ([], ["a"], ["b"], ["c"], ["a", "b"], ["a", ""], ["a", "c", "d"], ["c", "c", "c"])
] + ["/a/b/c/d", "/a/b/", "/b/b/b/", "/a/a", "/a/a/a", "/b/a"]


@given(PATTERNS, PATTERNS)
def test_one_path_pattern_covers_another_only_if_every_path_says_so(wide: str, narrow: str) -> None:
    if "//" in wide or "//" in narrow:
        return
    one, other = parse_path_pattern(wide), parse_path_pattern(narrow)
    forms = [read.form for read in map(read_path, FORMS) if read is not None]
    if path_covers(one, other):
        assert all(one.matches(form) for form in forms if other.matches(form))
    assert path_covers(one, one) and path_covers(None, one)
    assert path_covers(one, None) is (wide == "/**")


def test_encoded_slashes_under_observation_are_never_called_no_widening() -> None:
    wide = "hosts: [.x.test], observe: true, encoded_slash: true"
    old = rules("hosts: [a.x.test]", wide)
    assert _widens(old, rules("hosts: [b.x.test]", wide))


def test_a_field_that_the_comparison_does_not_know_counts_as_widening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = dict(compared_fields.COMPARED)
    known[RuleSpec] = known[RuleSpec] - {"acknowledged"}
    monkeypatch.setattr(compared_fields, "COMPARED", known)
    meant = "hosts: [a.test], acknowledge: [wide_host]"
    old, new = rules("hosts: [a.test]"), rules(meant)
    changes = diff_policies(old.spec, new.spec)
    (told,) = [change for change in changes if change.kind is ChangeKind.NOT_COMPARED]
    assert told.widens and "the rule r0: acknowledged" in told.what and told.position.line == 4
    assert not _widens(old, old)
    assert not _widens(rules("hosts: [a.test]", "hosts: [b.test]"), rules("hosts: [a.test]"))
    assert _widens(new, old)
