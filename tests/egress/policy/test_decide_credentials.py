"""Which verdicts name credentials: those of the rule that allowed the request, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.explain import explain
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.request_text import judge_request_from_url
from tests.egress.policy.policy_text import ASKER, PUBLIC, ask, rules

PRIVATE = ("10.0.0.1",)


def carrying(name: str) -> str:
    return f"credentials: [{{header: authorization, secret: 'vault:global/{name}'}}]"


def carried(policy: CompiledPolicy, text: str, resolved: tuple[str, ...] = PUBLIC) -> list[str]:
    return [one.secret.name for one in ask(policy, text, resolved).credentials]


def test_an_allowed_request_carries_the_credentials_of_its_rule() -> None:
    given = rules(f"hosts: [a.test], {carrying('a')}", "hosts: [b.test]")

    assert carried(given, "GET https://a.test/") == ["global/a"]
    assert carried(given, "GET https://b.test/") == []


def test_a_refused_request_carries_nothing() -> None:
    given = rules(f"hosts: [a.test], paths: [/x], {carrying('a')}")

    for text in ("GET https://a.test/y", "POST https://a.test/x", "GET https://c.test/x"):
        assert carried(given, text) == []
    assert carried(given, "GET https://a.test/x", ("127.0.0.1",)) == []


def test_a_connect_carries_nothing() -> None:
    given = rules(f"hosts: [a.test], {carrying('a')}")

    assert ask(given, "CONNECT a.test:443").allowed
    assert carried(given, "CONNECT a.test:443") == []


def test_only_the_deciding_rule_gives_its_credentials() -> None:
    given = rules(
        f"hosts: [.a.test], {carrying('wide')}",
        f"hosts: [api.a.test], paths: [/v1/**], {carrying('narrow')}",
        "hosts: [open.a.test]",
    )

    assert carried(given, "GET https://api.a.test/v1/x") == ["global/narrow"]
    assert carried(given, "GET https://api.a.test/v2") == ["global/wide"]
    assert carried(given, "GET https://open.a.test/") == []


def test_the_rule_that_covers_the_private_address_gives_its_credentials() -> None:
    given = rules(
        f"hosts: [a.test], {carrying('public')}",
        f"hosts: [.a.test], private: [10.0.0.0/16], {carrying('private')}",
    )

    assert carried(given, "GET https://a.test/") == ["global/public"]
    assert carried(given, "GET https://a.test/", PRIVATE) == ["global/private"]


def test_what_only_observing_lets_pass_carries_nothing() -> None:
    of_rule = rules(f"hosts: [a.test], paths: [/x], observe: true, {carrying('a')}")
    of_file = rules(f"hosts: [a.test], paths: [/x], {carrying('a')}", more="mode: observe\n")

    for observing in (of_rule, of_file):
        assert ask(observing, "GET https://a.test/y").allowed
        assert carried(observing, "GET https://a.test/y") == []
        assert carried(observing, "GET https://a.test/x") == ["global/a"]


@given(
    st.lists(
        st.sampled_from(
            [
                f"hosts: [{host}], paths: [{path}], observe: {observe}, {carrying(host.strip('.'))}"
                for host in ("a.test", ".a.test", "b.a.test")
                for path in ("/x", "/**")
                for observe in ("true", "false")
            ]
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["GET https", "POST https", "GET http"]),
    st.sampled_from(["a.test", "b.a.test", "c.test"]),
    st.sampled_from(["/x", "/y"]),
    st.sampled_from([PUBLIC, PRIVATE, (*PUBLIC, *PRIVATE)]),
)
def test_credentials_are_those_of_the_rule_that_the_verdict_names(
    items: list[str], how: str, host: str, path: str, resolved: tuple[str, ...]
) -> None:
    given = rules(*items)
    verdict = ask(given, f"{how}://{host}{path}", resolved)

    if not verdict.allowed or verdict.would_deny is not None:
        assert verdict.credentials == ()
    else:
        assert verdict.rule_id is not None
        assert verdict.credentials == given.rules[verdict.rule_id].credentials
        assert {one.rule_id for one in verdict.credentials} == {verdict.rule_id}


def test_an_explanation_names_the_secret_and_its_place() -> None:
    given = rules(
        "hosts: [a.test], credentials: [{header: authorization, secret: 'kv:secret/git#token',"
        " basic_user: bot, placeholder: put-it-here}]"
    )

    found = explain(given, judge_request_from_url("GET", "https://a.test/", ASKER), PUBLIC, 0)

    assert (
        "credential authorization from kv:secret/git#token, Basic for bot, in place of"
        in "\n".join(found.lines)
    )


def test_a_credential_for_many_hosts_is_a_finding() -> None:
    def codes(hosts: str) -> set[str]:
        return {one.code for one in lint(rules(f"hosts: [{hosts}], {carrying('a')}"), 0)}

    for many in ("'*.a.test'", ".a.test", "a.test, .b.test", "203.0.113.0/24"):
        assert "credential_wildcard" in codes(many)
    for one in ("a.test", "a.test, b.test", "203.0.113.7"):
        assert "credential_wildcard" not in codes(one)


def test_rules_that_differ_in_credentials_do_not_shadow_each_other() -> None:
    same = rules(f"hosts: [a.test], {carrying('a')}", f"hosts: [.a.test], {carrying('a')}")
    other = rules(f"hosts: [a.test], {carrying('a')}", f"hosts: [.a.test], {carrying('b')}")

    assert "rule_shadowed" in {one.code for one in lint(same, 0)}
    assert "rule_shadowed" not in {one.code for one in lint(other, 0)}
