"""Rules that pass tunnels on: which tunnels they are, and what diff, lint and judge say of them.

Mirror of policy/carriage.py and policy/tunnel_changes.py.
"""

import pytest

from palyra_egress.policy.case_lines import judge_case
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import decide
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.policy_diff import diff_policies
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.request import Requester
from palyra_egress.verdict import Verdict

NOW = 1_795_000_000_000
WHO = Requester("worker", "lease", "p")
PAPERS = "owner: o, reason: r"


def policy(*rules: str) -> CompiledPolicy:
    """Rules `a`, `b`, … in profile `p`."""
    ids = "abcdef"[: len(rules)]
    lines = "".join(
        f"  - {{id: {rule_id}, {PAPERS}, {rule}}}\n"
        for rule_id, rule in zip(ids, rules, strict=True)
    )
    profiles = f"profiles: {{p: [{', '.join(ids)}]}}\n"
    return load_policy(f"version: 1\nname: t\nrules:\n{lines}{profiles}".encode(), "f")


def connect(given: CompiledPolicy, host: str, address: str = "203.0.114.1") -> Verdict:
    return decide(given, connect_from_authority(f"{host}:443", WHO), (address,), NOW)


SEEN, UNSEEN = "hosts: [a.test]", "hosts: [a.test], tls: tunnel"
CARRIED = [
    ((UNSEEN,), "tunnel"),
    ((SEEN, UNSEEN), "inspect"),
    ((UNSEEN, SEEN), "inspect"),
    ((UNSEEN, "hosts: [.test], acknowledge: [wide_host]"), "tunnel"),
    ((SEEN, "hosts: [.test], acknowledge: [wide_host], tls: tunnel"), "inspect"),
    ((UNSEEN, "hosts: [a.test], until: 2026-01-01T00:00:00Z"), "tunnel"),
    ((UNSEEN, "hosts: [a.test], limits: {max_response_bytes: 0}"), "tunnel"),
    ((UNSEEN, "hosts: [a.test], ports: [8443]"), "tunnel"),
]


@pytest.mark.parametrize(("rules", "mode"), CARRIED)
def test_the_most_specific_pattern_decides_how_and_at_one_pattern_inspection_wins(rules, mode):
    verdict = connect(policy(*rules), "a.test")
    assert verdict.allowed and verdict.tls.value == mode


def test_a_rule_that_tunnels_allows_every_request_also_when_another_rule_inspects():
    given = policy("hosts: [a.test], paths: [/open/**]", UNSEEN)
    assert connect(given, "a.test").tls.value == "inspect"
    for method, path in (("POST", "/closed"), ("DELETE", "/a%2Fb")):
        request = judge_request_from_url(method, f"https://a.test{path}", WHO)
        verdict = decide(given, request, ("203.0.114.1",), NOW)
        assert verdict.allowed and verdict.rule_id == "b"


def test_only_a_tunnel_that_is_passed_on_has_budgets_of_its_own():
    limits = "limits: {max_request_bytes: 1KiB, bytes_per_hour: 1MiB}"
    unseen = connect(policy(f"{UNSEEN}, {limits}"), "a.test")
    assert unseen.limits.max_request_bytes == 1024 and unseen.accounts
    seen = connect(policy(f"{SEEN}, {limits}"), "a.test")
    assert seen.limits.max_request_bytes is None and not seen.accounts


WIDE = "hosts: ['*.x.test']"
DIFFS = [
    # old, new, what the change says, whether it widens
    ((SEEN,), (UNSEEN,), "tunnels to a.test:443, unseen", True),
    ((UNSEEN,), (SEEN,), "no longer: p: tunnels to a.test:443", False),
    ((SEEN, UNSEEN), ("hosts: [b.test]", UNSEEN), "tunnels to a.test:443, unseen, by b", True),
    (
        (f"{WIDE}, tls: tunnel", "hosts: [a.x.test]"),
        (f"{WIDE}, tls: tunnel",),
        "tunnels to a.x.test:443, unseen, by a",
        True,
    ),
    (
        (UNSEEN, SEEN),
        (UNSEEN, f"{SEEN}, until: 2027-01-01T00:00:00Z"),
        "tunnels to a.test:443, unseen, by a",
        True,
    ),
    ((UNSEEN,), (f"{UNSEEN}, ech: true",), "a.test:443 accepts ech", True),
    ((f"{SEEN}, missing_sni: true",), (SEEN,), "a.test:443 refuses missing_sni", False),
]


@pytest.mark.parametrize(("old", "new", "words", "widens"), DIFFS)
def test_diff_tells_what_passes_unseen_now(old, new, words, widens):
    changes = diff_policies(policy(*old).spec, policy(*new).spec)
    assert any(words in change.what and change.widens is widens for change in changes), changes


def test_a_tunnel_under_another_rules_name_is_no_change_of_what_passes_unseen():
    changes = diff_policies(policy(SEEN, UNSEEN).spec, policy(UNSEEN, SEEN).spec)
    assert not any(change.widens for change in changes)


LINTS = [
    ((f"{WIDE}, tls: tunnel",), "tunnel_wide", True),
    ((UNSEEN,), "tunnel_wide", False),
    ((SEEN, UNSEEN), "tunnel_never", True),
    ((SEEN, "hosts: [a.test, b.test], tls: tunnel"), "tunnel_never", False),
    ((UNSEEN,), "tunnel_unmetered", True),
    ((f"{UNSEEN}, limits: {{bytes_per_hour: 1GiB}}",), "tunnel_unmetered", False),
    ((f"{UNSEEN}, ech: true",), "hidden_sni", True),
    ((f"{SEEN}, missing_sni: true",), "hidden_sni", True),
    ((UNSEEN, SEEN), "rule_shadowed", False),
]


@pytest.mark.parametrize(("rules", "code", "found"), LINTS)
def test_lint_tells_what_to_think_about_twice(rules, code, found):
    assert (code in [finding.code for finding in lint(policy(*rules), NOW)]) is found


JUDGED = [
    (UNSEEN, {"sni": "a.test"}, "egress.allowed"),
    (UNSEEN, {"sni": None}, "egress.sni_missing"),
    (UNSEEN, {"sni": "b.test"}, "egress.authority_mismatch"),
    (f"{UNSEEN}, missing_sni: true", {"sni": None}, "egress.allowed"),
    (UNSEEN, {"sni": "a.test", "ech": True}, "egress.ech_not_allowed"),
    (f"{UNSEEN}, ech: true", {"sni": "a.test", "ech": True}, "egress.allowed"),
    (SEEN, {"sni": "a.test", "ech": True}, "egress.allowed"),
    (SEEN, {"ech": "yes"}, "egress.request_malformed"),
]


@pytest.mark.parametrize(("rule", "hello", "reason"), JUDGED)
def test_policy_judge_knows_the_handshake(rule, hello, reason):
    case = {"method": "GET", "url": "https://a.test/", "resolved": ["203.0.114.1"], **hello}
    answer = judge_case(policy(rule), case, "p", NOW)
    assert answer["reason"] == reason
    if reason == "egress.allowed":
        assert answer["tls"] == ("tunnel" if "tunnel" in rule else "inspect")
