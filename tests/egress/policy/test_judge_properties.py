"""What must hold for every policy and every request."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.compile import CompiledPolicy, compile_policy
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.request import CanonicalHost, EgressRequest, Requester, RequestKind
from palyra_egress.verdict import Effect, NeedsResolution, Verdict
from tests.egress.policy.policy_text import request, rules

HOSTS = ["a.x.test", "b.a.x.test", "x.test", "10.0.0.1", "8.8.8.8", "127.0.0.1"]
_FIELDS = st.fixed_dictionaries(
    {
        "hosts": st.sampled_from(
            ["[a.x.test]", "[.x.test]", "['*.x.test']", "[10.0.0.0/8]", "[8.8.8.8]", "[]"]
        )
    },
    optional={
        "methods": st.sampled_from(["[GET]", "[GET, POST]", "[]"]),
        "paths": st.sampled_from(["[/a]", "[/a/**]", "[/*]", "[]"]),
        "schemes": st.sampled_from(["[http]", "[https, http]"]),
        "ports": st.sampled_from(["[443]", "[8443, 80]"]),
        "private": st.sampled_from(["[10.0.0.0/8]", "[127.0.0.0/8]"]),
        "until": st.sampled_from(["1970-01-01T00:00:01Z", "2999-01-01T00:00:00Z"]),
        "observe": st.sampled_from(["true", "false"]),
        "encoded_slash": st.sampled_from(["true", "false"]),
        "limits": st.sampled_from(["{max_response_bytes: 0}", "{max_response_bytes: 9}"]),
    },
)
RULES = st.lists(
    _FIELDS.map(lambda fields: ", ".join(f"{k}: {v}" for k, v in fields.items())), max_size=5
)
MODES = st.sampled_from(["mode: enforce\n", "mode: observe\n"])
REQUESTS = st.builds(
    lambda method, scheme, host, port, path: request(
        f"CONNECT {host}:{port}"
        if method == "CONNECT"
        else f"{method} {scheme}://{host}:{port}{path}"
    ),
    st.sampled_from(["GET", "POST", "CONNECT"]),
    st.sampled_from(["http", "https"]),
    st.sampled_from(HOSTS),
    st.sampled_from([80, 443, 8443]),
    st.sampled_from(["/", "/a", "/a/b", "/a%2Fb", "/a/%2e"]),
)
ANSWERS = st.lists(
    st.sampled_from(["203.0.114.1", "10.0.0.1", "127.0.0.1", "169.254.169.254", "x"]), max_size=3
)


def _without_last(policy: CompiledPolicy) -> CompiledPolicy:
    """The same policy with its last allow rule taken out."""
    spec = policy.spec
    gone = spec.rules[-1].rule_id
    profiles = tuple(
        replace(profile, rule_ids=tuple(row for row in profile.rule_ids if row[0] != gone))
        for profile in spec.profiles
    )
    return compile_policy(replace(spec, rules=spec.rules[:-1], profiles=profiles), policy.digest)


@given(RULES.filter(len), MODES, REQUESTS, ANSWERS)
def test_adding_an_allow_rule_never_turns_allow_into_deny(
    items: list[str], mode: str, asked: EgressRequest, answers: list[str]
) -> None:
    after = rules(*items, more=mode)
    before = _without_last(after)
    if decide(before, asked, answers, 5000).allowed:
        assert decide(after, asked, answers, 5000).allowed


OBSERVED_PRIVATE = [
    # the rule that opens the range is nearest no more, once another one names the host
    (
        "hosts: [10.0.0.0/8], private: [10.0.0.0/8], schemes: [http], until: 1970-01-01T00:00:01Z",
        "hosts: [10.0.0.0/8]",
        "GET https://10.0.0.1:80/",
    ),
    # the new rule allows the method, but not the address
    (
        "hosts: [10.0.0.0/8], private: [10.0.0.0/8], methods: [GET]",
        "hosts: [10.0.0.0/8], methods: [POST]",
        "POST https://10.0.0.1:443/",
    ),
]


@pytest.mark.parametrize(("opening", "added", "asked"), OBSERVED_PRIVATE)
def test_what_an_observing_policy_lets_through_to_a_private_address_stays_let_through(
    opening: str, added: str, asked: str
) -> None:
    mode = "mode: observe\n"
    before, after = rules(opening, more=mode), rules(opening, added, more=mode)
    assert decide(before, request(asked), [], 5000).allowed
    verdict = decide(after, request(asked), [], 5000)
    assert verdict.allowed
    assert verdict.would_deny is not None
    closed = decide(rules(added, more=mode), request(asked), [], 5000)
    assert not closed.allowed, "nothing opens the address"


@given(RULES, REQUESTS, ANSWERS, st.sampled_from([".x.test", "a.x.test", "10.0.0.0/8", "8.8.8.8"]))
def test_adding_a_deny_rule_never_allows(
    items: list[str], asked: EgressRequest, answers: list[str], host: str
) -> None:
    before = decide(rules(*items), asked, answers, 5000)
    denying = rules(*items, more=f"deny: [{{id: d, hosts: ['{host}']}}]\n")
    after = decide(denying, asked, answers, 5000)
    assert before.allowed or not after.allowed


@given(RULES, MODES, REQUESTS, ANSWERS)
def test_both_phases_agree_and_only_judged_addresses_are_pinned(
    items: list[str], mode: str, asked: EgressRequest, answers: list[str]
) -> None:
    policy = rules(*items, more=mode)
    first = precheck(policy, asked, 5000)
    final = decide(policy, asked, answers, 5000)
    if isinstance(first, Verdict):
        assert final == first
    else:
        assert isinstance(first, NeedsResolution) and first.host == asked.host
        assert set(final.pinned) <= set(answers)
    assert bool(final.pinned) is final.allowed
    assert "169.254.169.254" not in final.pinned
    assert final.allowed is (final.effect is Effect.ALLOW)


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=30),
    st.integers(),
    st.text(max_size=30),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from(list(RequestKind)),
)
def test_no_text_makes_the_judge_raise_or_allow(
    method: str,
    scheme: str,
    host: str,
    port: int,
    path: str,
    answers: list[str],
    kind: RequestKind,
) -> None:
    policy = rules("hosts: [a.x.test]")
    asked = EgressRequest(
        kind,
        method,
        scheme,  # type: ignore[arg-type]  # a stranger's text where a scheme should be
        CanonicalHost(host),
        port,
        path,
        path,
        Requester(host, path, "p"),
    )
    for verdict in (precheck(policy, asked, 0), decide(policy, asked, answers, 0)):
        assert isinstance(verdict, Verdict) and not verdict.allowed


def test_a_request_of_the_wrong_types_is_denied_as_an_internal_fault() -> None:
    policy = rules("hosts: [a.x.test]")
    broken = replace(request("GET https://a.x.test/"), host=b"a.x.test", requester=None)  # type: ignore[arg-type]
    verdict = decide(policy, broken, ["203.0.114.1"], 0)
    assert verdict.effect is Effect.DENY and verdict.reason.short == "internal"
    answers: list[str] = [b"1.1.1.1"]  # type: ignore[list-item]
    assert not decide(policy, request("GET https://a.x.test/"), answers, 0).allowed
