"""Profiles that set limits and demand facts: how they are read, judged, explained and compared."""

import json
from dataclasses import fields, replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.facts import UNATTESTED, AttestedFacts, BindingLevel
from palyra_egress.policy.case_lines import judge_case
from palyra_egress.policy.compile import CompiledPolicy, compile_policy
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.explain import explain
from palyra_egress.policy.json_schema import policy_schema
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.policy_diff import diff_policies
from palyra_egress.policy.policy_format import format_policy
from palyra_egress.policy.requirements import Requirements
from palyra_egress.policy.schema import effective_limits
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import Limits, Verdict
from tests.egress.policy.policy_text import HEAD, policy, request, short
from tests.egress.policy.test_judge_properties import ANSWERS, MODES, REQUESTS, RULES
from tests.egress.policy.test_requirements import FACTS, REQUIREMENTS, A, B

RULE = "rules: [{id: r, hosts: [a.example]}]\n"
OBSERVED = AttestedFacts(A, None, None, frozenset({"gpu"}), BindingLevel.OBSERVED)
ENFORCED = replace(OBSERVED, binding_level=BindingLevel.ENFORCED)
ASKED = "GET https://a.example/"


def profile(text: str, more: str = "", rule: str = RULE) -> CompiledPolicy:
    """A policy whose one profile `p` has the rule `r` and what `text` says."""
    return policy(f"{rule}profiles: {{p: {{rules: [r], {text}}}}}\n{more}")


def asking(facts: AttestedFacts, text: str = ASKED) -> EgressRequest:
    return request(text, Requester("worker-1", "lease-1", "p", facts=facts))


def judged(
    given: CompiledPolicy, facts: AttestedFacts, text: str = ASKED, at: str = "203.0.114.1"
) -> Verdict:
    return decide(given, asking(facts, text), (at,), 0)


# --- reading ------------------------------------------------------------------------------------

REFUSED = [
    # what stands under profile p after its rules, column of the problem on line 4, code, words
    ("limit: {}", 28, "unknown_key", "did you mean 'limits'?"),
    ("requires: enforced", 38, "wrong_type", "'requires' is the text 'enforced'"),
    ("requires: []", 38, "wrong_type", "a mapping"),
    ("requires: {}", 38, "bad_value", "'requires' demands nothing"),
    ("requires: {binding_level: enforce}", 54, "bad_value", "did you mean 'enforced'?"),
    ("requires: {binding_level: none}", 54, "bad_value", "one of claimed, observed, enforced"),
    ("requires: {binding_level: 3}", 54, "bad_value", "the number 3"),
    ("requires: {binding: enforced}", 39, "unknown_key", "did you mean 'binding_level'?"),
    ("requires: {image_digest: [x]}", 39, "unknown_key", "did you mean 'image_digests'?"),
    (f"requires: {{image_digests: [{A}]}}", 55, "bad_value", f"did you mean 'sha256:{A}'?"),
    (f"requires: {{image_digests: ['sha256:{A[1:]}']}}", 55, "bad_value", "64 lower-case hex"),
    (f"requires: {{build_digests: ['SHA256:{A}']}}", 55, "bad_value", f"'sha256:{A}'?"),
    ("requires: {artifact_digests: x}", 57, "wrong_type", "a list of digests"),
    ("requires: {capabilities: []}", 53, "bad_value", "names none"),
    ("requires: {capabilities: [GPU]}", 54, "bad_value", "lower-case letters"),
    ("limits: {bytes_per_day: 1GiB}", 37, "not_supported_yet", "use bytes_per_hour"),
    ("limits: {requests_per_minute: 0}", 58, "bad_value", "from 1"),
]


@pytest.mark.parametrize(("text", "column", "code", "words"), REFUSED)
def test_a_mistake_in_a_profile_is_told_with_its_place(
    text: str, column: int, code: str, words: str
) -> None:
    with pytest.raises(PolicyFileError) as refused:
        profile(text)
    told = [str(problem) for problem in refused.value.problems]
    assert len(told) == 1, told
    assert told[0].startswith(f"test.yaml:4:{column}: {code}: ") and words in told[0]


def test_a_mapping_without_rules_is_refused_and_one_with_a_misspelt_rule_too() -> None:
    with pytest.raises(PolicyFileError, match=r"4:15: missing_key: a profile has no 'rules'"):
        policy(f"{RULE}profiles: {{p: {{limits: {{}}}}}}\n")
    with pytest.raises(PolicyFileError, match=r"unknown_rule.*did you mean 'r'"):
        policy(f"{RULE}profiles: {{p: {{rules: [rr]}}}}\n")


def test_a_list_and_a_mapping_with_rules_alone_mean_the_same() -> None:
    short_form = policy(f"{RULE}profiles: {{p: [r]}}\n")
    long_form = policy(f"{RULE}profiles: {{p: {{rules: [r]}}}}\n")
    assert diff_policies(short_form.spec, long_form.spec) == ()
    assert judged(long_form, UNATTESTED).allowed


def test_fmt_keeps_both_forms_and_their_comments_and_orders_the_keys() -> None:
    text = f"""{HEAD}{RULE}profiles:
  plain: [r] # a list
  p: # a mapping
    # whom it is for
    requires: {{capabilities: [gpu], binding_level: observed}}
    limits: {{bytes_per_hour: 1024MiB, requests_per_minute: 5}} # small
    rules: [r]
"""
    written = format_policy(text.encode(), "f").decode()
    assert format_policy(written.encode(), "f").decode() == written
    assert "  plain: [r] # a list\n  p: # a mapping\n    rules: [r]\n" in written
    assert "limits: {requests_per_minute: 5, bytes_per_hour: 1GiB} # small\n" in written
    assert "# whom it is for\n    requires: {binding_level: observed, cap" in written


# --- demands ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "facts", "answer"),
    [
        ("binding_level: enforced", ENFORCED, "allow"),
        ("binding_level: enforced", OBSERVED, "profile_requirements"),
        ("binding_level: claimed", UNATTESTED, "profile_requirements"),
        (f"image_digests: ['sha256:{B}', 'sha256:{A}']", OBSERVED, "allow"),
        (f"image_digests: ['sha256:{B}']", OBSERVED, "profile_requirements"),
        ("image_digests: []", OBSERVED, "profile_requirements"),
        (f"build_digests: ['sha256:{A}']", OBSERVED, "profile_requirements"),
        (f"artifact_digests: ['sha256:{A}']", OBSERVED, "profile_requirements"),
        ("capabilities: [gpu]", OBSERVED, "allow"),
        ("capabilities: [gpu, net]", OBSERVED, "profile_requirements"),
        (f"capabilities: [gpu], image_digests: ['sha256:{A}']", OBSERVED, "allow"),
        (f"capabilities: [gpu], image_digests: ['sha256:{A}']", UNATTESTED, "profile_requirements"),
    ],
)
def test_the_facts_decide_whether_the_profile_holds(
    demand: str, facts: AttestedFacts, answer: str
) -> None:
    given_policy = profile(f"requires: {{{demand}}}")
    for text in (ASKED, "CONNECT a.example:443"):
        verdict = judged(given_policy, facts, text)
        assert short(verdict) == answer
        if answer != "allow":
            assert (verdict.rule_id, verdict.policy_file, verdict.line) == (None, "test.yaml", 4)


def test_a_worker_that_is_not_what_its_profile_demands_causes_no_look_up() -> None:
    given_policy = profile("requires: {binding_level: enforced}")
    assert isinstance(precheck(given_policy, asking(OBSERVED), 0), Verdict)


@pytest.mark.parametrize("text", [ASKED, "GET https://other.example/", "GET https://bad.example/"])
def test_observing_lets_no_worker_pass_that_the_profile_does_not_want(text: str) -> None:
    more = "mode: observe\ndeny: [{id: d, hosts: [bad.example]}]\n"
    rule = RULE.replace("]}]", "], observe: true}]")
    given_policy = profile("requires: {binding_level: enforced}", more, rule)
    assert judged(given_policy, ENFORCED, text).allowed
    assert short(judged(given_policy, OBSERVED, text)) == "profile_requirements"


def test_what_no_worker_may_reach_is_still_told_as_that() -> None:
    rule = (
        "rules:\n  - {id: r, hosts: [10.0.0.0/8, a.example], private: [10.0.0.0/9],\n"
        "     schemes: [http]}\n"
    )
    given_policy = profile("requires: {binding_level: enforced}", rule=rule)
    for url, answer in (
        ("http://169.254.169.254/", "metadata_target"),
        ("http://127.0.0.1/", "private_target"),
        ("http://10.200.0.1/", "private_target"),
        ("http://10.1.0.1/", "profile_requirements"),
        ("http://10.1.0.1:81/", "profile_requirements"),
        ("http://192.0.9.1/", "profile_requirements"),
    ):
        assert short(judged(given_policy, OBSERVED, f"GET {url}")) == answer, url
    assert short(judged(given_policy, ENFORCED, "GET http://10.1.0.1/")) == "allow"
    assert short(judged(given_policy, ENFORCED, "GET http://10.200.0.1/")) == "private_target"


def test_an_unmet_demand_may_cost_the_worker_what_the_policy_says() -> None:
    more = "violations: {strike: {on: [profile_requirements], limit: 2, window: 1m}}\n"
    verdict = judged(profile("requires: {capabilities: [net]}", more), OBSERVED)
    assert (verdict.consequence.value, verdict.strike_limit) == ("strike", 2)
    assert verdict.reason_class.value == "policy"


@pytest.mark.parametrize(
    ("demand", "facts", "costs"),
    [
        ("binding_level: enforced", UNATTESTED, "none"),
        ("binding_level: enforced", OBSERVED, "quarantine"),
        (f"build_digests: ['sha256:{A}']", OBSERVED, "none"),
        (f"image_digests: ['sha256:{B}']", OBSERVED, "quarantine"),
        ("capabilities: [net]", UNATTESTED, "none"),
        ("capabilities: [net]", OBSERVED, "quarantine"),
    ],
)
def test_what_is_not_known_refuses_and_costs_nothing(
    demand: str, facts: AttestedFacts, costs: str
) -> None:
    more = "violations: {quarantine: [profile_requirements]}\n"
    verdict = judged(profile(f"requires: {{{demand}}}", more), facts)
    assert (short(verdict), verdict.consequence.value) == ("profile_requirements", costs)


def test_facts_are_no_part_of_the_fingerprint() -> None:
    given_policy = profile("requires: {capabilities: [gpu]}")
    allowed, refused = judged(given_policy, OBSERVED), judged(given_policy, UNATTESTED)
    assert allowed.allowed and not refused.allowed
    assert allowed.fingerprint == refused.fingerprint


def test_explain_says_which_fact_failed_what_was_expected_and_what_was_seen() -> None:
    given_policy = profile(f"requires: {{binding_level: enforced, image_digests: ['sha256:{B}']}}")
    found = explain(given_policy, asking(OBSERVED), None, 0)
    assert not found.allowed
    lines = "\n".join(found.lines)
    assert f"binding_level at least enforced; image_digest one of sha256:{B}" in lines
    assert "unmet      binding_level: at least enforced; seen: observed" in lines
    assert f"unmet      image_digest: one of sha256:{B}; seen: sha256:{A}" in lines
    assert "profile at test.yaml:4" in lines
    assert [one.fact for one in found.unmet] == ["binding_level", "image_digest"]
    met = replace(ENFORCED, image_digest=B)
    assert explain(given_policy, asking(met), None, 0).unmet == ()


def test_explain_shows_the_limits_that_hold_and_where_each_is_counted() -> None:
    rule = RULE.replace("]}]", "], limits: {max_response_bytes: 2048, requests_per_minute: 3}}]")
    more = "limits: {bytes_per_hour: 9, requests_per_minute: 8}\n"
    given_policy = profile("limits: {bytes_per_hour: 1MiB}", more, rule)
    lines = explain(given_policy, asking(UNATTESTED), ("203.0.114.1",), 0).lines
    assert "limits     max_response_bytes 2KiB" in lines
    assert "counted    profile/p: bytes_per_hour 1MiB" in lines
    assert "counted    rule/r: requests_per_minute 3" in lines
    assert "counted    file: requests_per_minute 8, bytes_per_hour 9" in lines


def test_judge_takes_facts_and_a_fact_it_does_not_know_changes_nothing() -> None:
    given_policy = profile("requires: {binding_level: observed, capabilities: [gpu]}")

    def answer(facts: object) -> tuple[object, object]:
        case = {"method": "GET", "url": "https://a.example/", "resolved": ["203.0.114.1"]}
        found = judge_case(given_policy, {**case, "facts": facts}, "p", 0)
        return found["effect"], found["reason"]

    good: dict[str, object] = {"binding_level": "enforced", "capabilities": ["gpu"]}
    refused = ("deny", "egress.profile_requirements")
    malformed = ("deny", "egress.request_malformed")
    assert answer(good) == ("allow", "egress.allowed")
    assert answer({**good, "region": "here"}) == ("allow", "egress.allowed")
    assert answer({}) == answer({**good, "binding_level": None}) == refused
    assert answer({**good, "binding_level": "claimed"}) == refused
    assert answer({**good, "capabilities": "gpu"}) == answer([]) == malformed


def test_an_embedded_test_says_what_is_known_about_its_worker() -> None:
    tests = (
        "tests:\n"
        f"  - {{profile: p, request: {ASKED}, facts: {{binding_level: enforced}}, expect: allow}}\n"
        f"  - {{profile: p, request: {ASKED}, expect: deny profile_requirements}}\n"
    )
    assert profile("requires: {binding_level: enforced}", tests).spec.tests
    with pytest.raises(PolicyFileError, match=r"test_failed: GET .* gives deny profile_req"):
        profile("requires: {binding_level: enforced, capabilities: [gpu]}", tests)
    with pytest.raises(PolicyFileError, match="did you mean 'enforced'"):
        profile("limits: {}", tests.replace("enforced", "enforce"))
    with pytest.raises(PolicyFileError, match="'facts' has no key 'image'"):
        profile("limits: {}", tests.replace("binding_level: enforced", "image: x"))
    with pytest.raises(PolicyFileError, match="'x' is no digest; expected sha256: and 64"):
        profile("limits: {}", tests.replace("binding_level: enforced", "image_digest: x"))


@given(RULES, MODES, REQUESTS, ANSWERS, FACTS, REQUIREMENTS)
def test_adding_a_demand_never_allows_anything(
    items: list[str],
    mode: str,
    asked: EgressRequest,
    answers: list[str],
    facts: AttestedFacts,
    demands: Requirements,
) -> None:
    lines = "".join(f"  - {{id: r{i}, {item}}}\n" for i, item in enumerate(items))
    ids = ", ".join(f"r{i}" for i in range(len(items)))
    rules_text = f"rules:\n{lines}" if items else "rules: []\n"
    before = policy(f"{rules_text}profiles: {{p: [{ids}]}}\n{mode}")
    (given_profile,) = before.spec.profiles
    spec = replace(before.spec, profiles=(replace(given_profile, requires=demands),))
    after = compile_policy(spec, before.digest)
    asked = replace(asked, requester=replace(asked.requester, facts=facts))
    was, now = decide(before, asked, answers, 5000), decide(after, asked, answers, 5000)
    assert was.allowed or not now.allowed
    if demands.are_met(facts):
        assert now == was
    else:
        assert not now.allowed
        first = precheck(after, asked, 5000)
        assert isinstance(first, Verdict) and not first.allowed


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "own", "file", "holds"),
    [
        (None, None, None, None),
        (None, None, 9, 9),
        (None, 7, 9, 7),
        (None, 11, 9, 11),  # the file's size is a default, not a ceiling
        (5, 7, 9, 5),
        (8, 7, 9, 7),  # a profile's is a ceiling, whatever its rules say
        (20, None, 9, 20),
        (20, 11, 9, 11),
        (None, 0, 9, 0),
    ],
)
def test_of_rule_and_profile_the_smaller_size_holds_and_else_the_files(
    rule: int | None, own: int | None, file: int | None, holds: int | None
) -> None:
    sizes = (Limits(size, size) for size in (rule, own, file))
    assert effective_limits(*sizes) == Limits(holds, holds)


def test_every_rate_of_rule_profile_and_file_holds_at_once() -> None:
    rule = "rules: [{id: r, hosts: [a.example], limits: {bytes_per_hour: 1}}]\n"
    more = "limits: {request_bytes_per_hour: 3, requests_per_minute: 9}\n"
    given_policy = profile(
        "limits: {response_bytes_per_hour: 2, requests_per_minute: 8}", more, rule
    )
    accounts = judged(given_policy, UNATTESTED).accounts
    assert [account.name for account in accounts] == ["rule/r", "profile/p", "file"]
    assert [account.limits.bytes_per_hour for account in accounts] == [1, None, None]
    rates = given_policy.profiles["p"].rates
    assert [rate.limits.requests_per_minute for rate in rates] == [8, 9]
    assert judged(given_policy, UNATTESTED, "CONNECT a.example:443").accounts == ()


def test_what_observing_lets_pass_is_counted_in_profile_and_file() -> None:
    more = "mode: observe\nlimits: {bytes_per_hour: 9, max_response_bytes: 7}\n"
    given_policy = profile("limits: {bytes_per_hour: 5, max_request_bytes: 3}", more)
    verdict = judged(given_policy, UNATTESTED, "GET https://other.example/")
    assert verdict.would_deny is not None and verdict.rule_id is None
    assert [account.name for account in verdict.accounts] == ["profile/p", "file"]
    assert verdict.limits == Limits(3, 7)


@pytest.mark.parametrize("key", ["max_response_bytes", "bytes_per_hour", "response_bytes_per_hour"])
def test_no_byte_of_response_allows_nothing_wherever_it_is_said(key: str) -> None:
    assert short(judged(profile(f"limits: {{{key}: 0}}"), UNATTESTED)) == "budget_zero"
    in_rule = RULE.replace("]}]", f"], limits: {{{key}: 0}}}}]")
    assert short(judged(profile("limits: {}", rule=in_rule), UNATTESTED)) == "budget_zero"
    in_file = profile("limits: {}", f"limits: {{{key}: 0}}\n")
    assert short(judged(in_file, UNATTESTED)) == "budget_zero"


def test_the_same_rule_has_other_limits_in_another_profile() -> None:
    given_policy = policy(
        f"{RULE}limits: {{max_response_bytes: 9}}\n"
        "profiles: {p: {rules: [r], limits: {max_response_bytes: 2}}, q: [r]}\n"
    )
    for name, size in (("p", 2), ("q", 9)):
        asked = request(ASKED, Requester("w", "l", name))
        assert decide(given_policy, asked, ("203.0.114.1",), 0).limits.max_response_bytes == size


LIMITS = st.builds(Limits, *(st.none() | st.integers(0, 9) for _ in fields(Limits)))


@given(LIMITS, LIMITS, LIMITS)
def test_no_limit_that_holds_is_above_one_that_rule_or_profile_sets(
    rule: Limits, own: Limits, file: Limits
) -> None:
    holds = effective_limits(rule, own, file)
    for name in ("max_request_bytes", "max_response_bytes"):
        found = getattr(holds, name)
        set_ones = [one for one in (getattr(rule, name), getattr(own, name)) if one is not None]
        assert found == (min(set_ones) if set_ones else getattr(file, name))


def test_schema_and_reader_take_both_forms_of_a_profile() -> None:
    document = json.dumps(
        {
            "version": 1,
            "name": "n",
            "rules": [{"id": "r", "hosts": ["a.example"]}],
            "profiles": {
                "p": ["r"],
                "q": {"rules": ["r"], "requires": {"binding_level": "claimed"}},
            },
        }
    )
    assert set(load_policy(document.encode(), "f").profiles) == {"p", "q"}
    assert jsonschema.Draft202012Validator(policy_schema()).is_valid(json.loads(document))
