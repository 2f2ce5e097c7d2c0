"""`upstream_tls` in the language: read strictly, told by every tool, decided by the rule alone."""

import pytest

from palyra_egress.clock import now_unix_ms
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.explain import explain
from palyra_egress.policy.lint_codes import LintCode
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.policy_diff import ChangeKind, diff_policies
from palyra_egress.policy.policy_format import format_policy
from palyra_egress.policy.policy_lint import lint
from palyra_egress.verdict import USUAL_TLS, UpstreamTls
from tests.egress.policy.policy_text import HEAD, ask, request, rules

RULE = "rules:\n  - id: r\n    hosts: [a.example]\n"
BOTH = "upstream_tls: {roots: corp, client_certificate: agent}"
ROOTS = "upstream_tls: {roots: corp}"
SHOWN = "upstream_tls: {client_certificate: agent}"
PLAIN = "hosts: [a.example]"


def _problems(text: str) -> list[str]:
    with pytest.raises(PolicyFileError) as refused:
        load_policy(f"{HEAD}{text}".encode(), "f")
    return str(refused.value).splitlines()


REFUSED = [
    ("upstream_tls: corp", "6:19: wrong_type", "a mapping"),
    ("upstream_tls: {}", "6:19: bad_value", "`roots`, `client_certificate` or both"),
    ("upstream_tls: {root: corp}", "6:20: unknown_key", "did you mean 'roots'?"),
    ("upstream_tls: {roots: [corp]}", "6:27: bad_value", "'roots' is a list"),
    ("upstream_tls: {roots: /etc/corp.pem}", "6:27: bad_value", "letters, digits"),
    ("upstream_tls: {client_certificate: ''}", "6:40: bad_value", "letters, digits"),
    (f"{BOTH}\n    tls: tunnel", "6:5: bad_value", "'upstream_tls' could not be enforced"),
    (f"{BOTH}\n    schemes: [http]", "6:5: bad_value", "where no server is verified"),
    (f"{ROOTS}\n    schemes: [http, https]", "6:5: bad_value", "`schemes: [https]`"),
]


@pytest.mark.parametrize(("line", "place", "told"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_could_not_be_kept_refuses_the_file_where_it_stands(
    line: str, place: str, told: str
) -> None:
    problems = _problems(f"{RULE}    {line}\n")
    assert [problem for problem in problems if f"f:{place}" in problem and told in problem]


def test_every_mistake_is_told_at_once_and_each_once() -> None:
    problems = _problems(f"{RULE}    upstream_tls: {{roots: a/b, shown: c}}\n    schemes: [http]\n")
    assert [problem.split(": ")[1] for problem in problems] == [
        "bad_value",
        "bad_value",
        "unknown_key",
    ]


def test_a_default_that_tunnels_refuses_the_rule_too() -> None:
    told = _problems(f"tls: {{default: tunnel}}\n{RULE}    {BOTH}\n")
    assert any("'upstream_tls' could not be enforced" in problem for problem in told)


def test_the_deciding_rule_says_how_the_server_is_met() -> None:
    given = rules(f"{PLAIN}, paths: [/in/**], {BOTH}", f"{PLAIN}, paths: [/out/**]")
    assert ask(given, "GET https://a.example/in/x").upstream_tls == UpstreamTls("corp", "agent")
    assert ask(given, "GET https://a.example/out/x").upstream_tls == USUAL_TLS
    assert ask(given, "CONNECT a.example:443").upstream_tls == USUAL_TLS
    assert ask(given, "GET https://a.example/else").upstream_tls == USUAL_TLS


def test_what_is_only_observed_is_met_as_usual() -> None:
    given = rules(f"{PLAIN}, paths: [/in], observe: true, {BOTH}")
    verdict = ask(given, "GET https://a.example/else")
    assert verdict.would_deny is not None
    assert verdict.upstream_tls == USUAL_TLS


def test_fmt_keeps_it_in_its_place() -> None:
    turned = "until: 2999-01-01T00:00:00Z\n    upstream_tls: {client_certificate: a, roots: c}"
    text = f"{HEAD}{RULE}    {turned}\n"
    formatted = format_policy(text.encode(), "f").decode()
    assert formatted.index("upstream_tls:") < formatted.index("until:")
    assert formatted.index("roots: c") < formatted.index("client_certificate: a")


def test_explain_says_how_the_server_is_met() -> None:
    asked = request("GET https://a.example/")
    lines = explain(rules(f"{PLAIN}, {BOTH}"), asked, ["203.0.114.1"], 0).lines
    assert "server     verified by the roots corp alone, shown the certificate agent" in lines
    usual = explain(rules(PLAIN), asked, ["203.0.114.1"], 0).lines
    assert not any(line.startswith("server") for line in usual)


def test_lint_warns_where_a_certificate_goes_to_many() -> None:
    def codes(text: str) -> set[str]:
        return {finding.code for finding in lint(rules(text), now_unix_ms())}

    assert LintCode.CLIENT_CERTIFICATE_WILDCARD in codes(f"hosts: ['*.a.example'], {SHOWN}")
    assert LintCode.CLIENT_CERTIFICATE_WILDCARD not in codes(f"hosts: ['*.a.example'], {ROOTS}")
    assert LintCode.CLIENT_CERTIFICATE_WILDCARD not in codes(f"{PLAIN}, {SHOWN}")


def test_two_rules_that_meet_servers_differently_do_not_shadow_each_other() -> None:
    given = rules(PLAIN, f"{PLAIN}, paths: [/in/**], {BOTH}")
    found = {finding.code for finding in lint(given, now_unix_ms())}
    assert LintCode.RULE_SHADOWED not in found


# --- diff -----------------------------------------------------------------------------------------

CHANGES = [
    ("roots come", PLAIN, f"{PLAIN}, {ROOTS}", True),
    ("roots go", f"{PLAIN}, {ROOTS}", PLAIN, True),
    ("other roots", f"{PLAIN}, {ROOTS}", f"{PLAIN}, upstream_tls: {{roots: other}}", True),
    ("a certificate comes", PLAIN, f"{PLAIN}, {SHOWN}", True),
    ("a certificate goes", f"{PLAIN}, {SHOWN}", PLAIN, False),
    ("only the certificate goes", f"{PLAIN}, {BOTH}", f"{PLAIN}, {ROOTS}", False),
    (
        "another certificate",
        f"{PLAIN}, {SHOWN}",
        f"{PLAIN}, upstream_tls: {{client_certificate: other}}",
        True,
    ),
    ("the certificate goes with the roots", f"{PLAIN}, {BOTH}", PLAIN, True),
]


def _diff(old: CompiledPolicy, new: CompiledPolicy) -> list[tuple[ChangeKind, str]]:
    return [(change.kind, change.what) for change in diff_policies(old.spec, new.spec)]


@pytest.mark.parametrize(
    ("old", "new", "widens"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_another_way_to_meet_servers_is_told_and_widens_where_it_does(
    old: str, new: str, widens: bool
) -> None:
    found = _diff(rules(old), rules(new))
    assert [kind for kind, _ in found] == [
        ChangeKind.UPSTREAM_TLS if widens else ChangeKind.TIGHTENED
    ]
    assert found[0][1].startswith("r0: servers are verified by ")
    assert "; were verified by " in found[0][1]


def test_a_more_specific_rule_that_takes_over_is_told() -> None:
    old = rules("hosts: [.a.example]")
    new = rules("hosts: [.a.example]", f"hosts: [api.a.example], {BOTH}")
    found = _diff(old, new)
    assert [kind for kind, _ in found] == [ChangeKind.UPSTREAM_TLS]
    assert found[0][1].endswith("(was decided by r0)")


def test_where_it_is_not_certain_which_rule_decides_it_is_told() -> None:
    mine, beside = f"{PLAIN}, paths: [/*/b], {BOTH}", f"{PLAIN}, paths: [/a/*]"
    found = _diff(rules(mine, beside), rules(mine, f"{beside}, until: 2030-01-01T00:00:00Z"))
    told = [what for kind, what in found if kind is ChangeKind.UPSTREAM_TLS]
    assert len(told) == 1
    assert told[0].startswith("p: which servers are verified by the roots corp alone")


def test_how_it_is_written_means_nothing() -> None:
    turned = "upstream_tls: {client_certificate: agent, roots: corp}"
    assert _diff(rules(f"{PLAIN}, {BOTH}"), rules(f"{PLAIN}, {turned}")) == []


def test_a_new_place_tells_how_its_servers_are_met() -> None:
    found = _diff(rules(PLAIN), rules(PLAIN, f"hosts: [b.example], {BOTH}"))
    assert any("verified by the roots corp alone" in what for _, what in found)


# --- embedded tests -------------------------------------------------------------------------------

TEST = "tests: [{profile: p, request: GET https://a.example/, expect: allow, upstream_tls: {%s}}]\n"


def test_a_test_that_names_the_rules_way_passes() -> None:
    rules(f"{PLAIN}, {BOTH}", more=TEST % "roots: corp, client_certificate: agent")


@pytest.mark.parametrize("other", ["roots: corp", "roots: other, client_certificate: agent"])
def test_a_test_that_names_another_way_refuses_the_file(other: str) -> None:
    with pytest.raises(PolicyFileError) as refused:
        rules(f"{PLAIN}, {BOTH}", more=TEST % other)
    told = str(refused.value)
    assert "gives allow, a server verified by the roots corp alone, shown the certificate" in told
