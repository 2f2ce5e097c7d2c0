"""Mirror of policy/suggest.py and policy/path_groups.py: least rules, never more than was asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.decide import decide
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.path_groups import MANY, group_paths
from palyra_egress.policy.paths import parse_path_pattern
from palyra_egress.policy.suggest import LeftOut, as_yaml, suggest
from tests.egress.policy.policy_text import HEAD, PUBLIC, request, rules
from tests.egress.policy.recorded_traffic import early, entry

CURRENT = rules("hosts: [a.test]", more="deny: [{id: d, hosts: [.bad.test]}]\n")


def _suggested(*texts: str) -> str:
    found = suggest([entry(CURRENT, text) for text in texts], CURRENT)
    return "\n".join(as_yaml(found, ["r0"]))


def test_a_refused_request_gives_the_least_rule_with_owner_and_reason_left_open() -> None:
    assert _suggested("GET https://b.test/x/y", "POST https://b.test:8443/z") == (
        "rules:\n"
        "  # 1 refused, for p\n"
        "  - id: suggested-b.test\n"
        "    hosts: [b.test]\n"
        "    methods: [GET]\n"
        "    paths:\n"
        '      - "/x/y"\n'
        "    # owner: who answers for this rule?\n"
        "    # reason: why is it needed?\n"
        "  # 1 refused, for p\n"
        "  - id: suggested-b.test-8443\n"
        "    hosts: [b.test]\n"
        "    ports: [8443]\n"
        "    methods: [POST]\n"
        "    paths:\n"
        '      - "/z"\n'
        "    # owner: who answers for this rule?\n"
        "    # reason: why is it needed?\n"
        "# add to the profiles:\n"
        "#   p: [suggested-b.test, suggested-b.test-8443]"
    )


def test_methods_share_a_rule_only_if_they_need_the_same_paths() -> None:
    text = _suggested("GET https://b.test/x", "PUT https://b.test/x", "POST https://b.test/y")
    assert "methods: [GET, PUT]" in text and "methods: [POST]" in text
    assert "id: suggested-b.test-2" in text


def test_profiles_that_need_the_same_share_a_rule() -> None:
    entries = [entry(CURRENT, "GET https://b.test/", profile=name) for name in ("p", "p", "q")]
    policy = rules("hosts: [a.test]", more="")
    assert policy.profiles.keys() == {"p"}
    found = suggest(entries, policy)
    assert [rule.profile for rule in found.rules] == ["p"]
    assert found.left_out == {LeftOut.OTHER_REASON: 1}, "an unknown profile is not mended by a rule"


def test_where_only_connect_was_seen_the_rule_says_that_the_rest_is_a_guess() -> None:
    text = _suggested("CONNECT b.test:443")
    assert "only CONNECT was seen" in text and "methods: [GET, HEAD]" in text
    assert "paths" not in text.replace("methods and paths are not known", "")


def test_a_service_port_is_named_for_what_it_is() -> None:
    text = _suggested("GET https://b.test:5432/")
    assert "port 5432 belongs to PostgreSQL" in text and "acknowledge: [service_port]" in text


def test_observed_refusals_are_suggested_too() -> None:
    observing = rules("hosts: [a.test], observe: true")
    found = suggest([entry(observing, "PUT https://a.test/x")], observing)
    assert [rule.methods for rule in found.rules] == [("PUT",)]


def test_what_the_policy_allows_by_now_is_not_suggested() -> None:
    wider = rules("hosts: [.b.test]")
    found = suggest([entry(CURRENT, "GET https://b.test/")], wider)
    assert found.rules == () and found.still_allowed == 1
    assert as_yaml(found, []) == ["# nothing to suggest"]


NEVER = [
    ("GET https://203.0.114.9/", PUBLIC, LeftOut.ADDRESS),
    ("GET http://169.254.169.254/latest/", PUBLIC, LeftOut.ADDRESS),
    ("CONNECT 10.0.0.1:443", PUBLIC, LeftOut.ADDRESS),
    ("GET https://localhost/", PUBLIC, LeftOut.SINGLE_LABEL),
    ("GET https://a.test/", ["10.0.0.1"], LeftOut.NOT_PUBLIC),
    ("GET https://a.test/", ["203.0.114.1", "169.254.169.254"], LeftOut.NOT_PUBLIC),
    ("GET https://www.bad.test/", PUBLIC, LeftOut.DENIED),
    ("GET https://b.test/a%2Fb", PUBLIC, LeftOut.PATH),
    ("GET https://b.test/a/*", PUBLIC, LeftOut.PATH),
    ("GET https://b.test/a/**", PUBLIC, LeftOut.PATH),
    ("TRACE https://b.test/", PUBLIC, LeftOut.METHOD),
]


@pytest.mark.parametrize(("text", "resolved", "why"), NEVER)
def test_some_things_are_never_suggested(text: str, resolved: list[str], why: LeftOut) -> None:
    found = suggest([entry(CURRENT, text, resolved=resolved)], CURRENT)
    assert found.rules == () and found.left_out == {why: 1}


def test_entries_that_cannot_be_judged_are_counted_and_other_profiles_left_alone() -> None:
    entries = [early(), entry(CURRENT, "GET https://b.test/", profile="q")]
    found = suggest(entries, CURRENT, "p")
    assert found.left_out == {LeftOut.NOT_JUDGED: 1} and found.rules == ()


ASKED = st.lists(
    st.builds(
        lambda method, host, port, parts: f"{method} https://{host}:{port}/{'/'.join(parts)}",
        st.sampled_from(["GET", "POST", "PUT"]),
        st.sampled_from(["b.test", "c.b.test", "xn--bcher-kva.test"]),
        st.sampled_from([443, 8443]),
        st.lists(st.sampled_from([*"abcdefg", "1.2", "q'%22"]), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=25,
)


@given(ASKED)
def test_pasted_suggestions_load_and_allow_what_was_asked_and_no_other_method_or_host(
    texts: list[str],
) -> None:
    found = suggest([entry(CURRENT, text) for text in texts], CURRENT)
    lines = as_yaml(found, ["r0"])
    names = lines[-1].removeprefix("#   ")
    source = "\n".join([f"{HEAD}profiles: {{{names}}}", *lines, ""])
    policy = load_policy(source.encode(), "f")
    for text in texts:
        assert decide(policy, request(text), PUBLIC, 0).allowed, text
    asked_at = {(text.split(" ")[0], request(text).host, request(text).port) for text in texts}
    for rule in policy.spec.rules:
        for host in rule.hosts:
            for _, port in rule.endpoints:
                assert {(method, host.name, port) for method in rule.methods} <= asked_at


@given(st.sets(st.builds("/{}/{}".format, st.sampled_from("ab"), st.integers(0, 9))))
def test_paths_stay_exact_until_many_of_them_differ_in_one_place(forms: set[str]) -> None:
    patterns = group_paths(forms)
    parsed = [parse_path_pattern(pattern) for pattern in patterns]
    assert all(any(pattern.matches(form) for pattern in parsed) for form in forms)
    for parent in "ab":
        below = [form for form in forms if form.startswith(f"/{parent}/")]
        is_wide = any(pattern.startswith(f"/{parent}/*") for pattern in patterns)
        assert is_wide is (len(below) >= MANY)
    assert not any("**" in pattern for pattern in patterns)


def test_a_segment_in_the_middle_becomes_a_wildcard_when_many_differ_there() -> None:
    forms = [f"/repos/{number}/issues" for number in range(MANY)]
    assert group_paths([*forms, "/login"]) == ["/login", "/repos/*/issues"]
    assert group_paths(["/", "/a/"]) == ["/", "/a/"]
