"""Canaries in policy files: how they are read, compared and linted, and what the judge says."""

import pytest

from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.explain import explain
from palyra_egress.policy.load import load_policy, load_policy_file
from palyra_egress.policy.policy_diff import diff_policies
from palyra_egress.policy.policy_format import format_policy
from palyra_egress.policy.policy_lint import lint
from palyra_egress.reasons import Reason
from palyra_egress.verdict import Consequence
from tests.egress.policy.policy_text import COMPLETE, HEAD, ask, request, rules

VALUE = "AKIADECOY0000000QQ"
RULE = "rules: [{id: r, hosts: [.a.test]}]\nprofiles: {p: [r]}\n"
DECOY = f"{{id: decoy, value: {VALUE}, reason: planted}}"
COSTS = "violations: {quarantine: [canary, credential_leak]}\n"


def _policy(*canaries: str, more: str = ""):
    text = f"{HEAD}{RULE}{more}canaries: [{', '.join(canaries)}]\n"
    return load_policy(text.encode(), "f")


REFUSED = [
    ("canaries: decoy", "3:11: wrong_type", "a list of canaries"),
    (f"canaries: {VALUE}", "3:11: wrong_type", "a list of canaries"),
    ("canaries: [decoy]", "3:12: wrong_type", "a mapping with id, and value or secret"),
    (f"canaries: [{{value: {VALUE}}}]", "3:12: missing_key", "has no 'id'"),
    ("canaries: [{id: c}]", "3:12: bad_value", "neither value nor secret"),
    (
        f"canaries: [{{id: c, value: {VALUE}, secret: 'env:A'}}]",
        "3:12: bad_value",
        "both a value and a secret",
    ),
    ("canaries: [{id: c, value: too-short}]", "3:27: bad_value", "12 to 500 printable"),
    ("canaries: [{id: c, value: aaaaabbbbbccccc}]", "3:27: bad_value", "different ones"),
    ("canaries: [{id: c, value: 1234567890123}]", "3:27: bad_value", "printable ASCII"),
    ("canaries: [{id: c, value: 'bücher-und-mehr'}]", "3:27: bad_value", "printable ASCII"),
    ("canaries: [{id: c, secret: hunter2-hunter2}]", "3:28: bad_value", "vault:global"),
    (f"canaries: [{{id: c, vaule: {VALUE}}}]", "3:20: unknown_key", "did you mean 'value'?"),
    (f"{RULE}canaries: [{{id: r, value: {VALUE}}}]", "5:12: duplicate_id", "'r' is taken"),
    (f"canaries: [{DECOY}, {DECOY}]", "duplicate_id", "'decoy' is taken"),
]


@pytest.mark.parametrize(("text", "place", "told"), REFUSED)
def test_a_mistake_is_told_with_its_place_and_without_the_value(text, place, told):
    with pytest.raises(PolicyFileError) as refused:
        load_policy(f"{HEAD}{text}\n".encode(), "f")
    said = str(refused.value)
    assert f"{place}" in said
    assert told in said
    for value in (VALUE, "hunter2", "too-short", "aaaaabbbbb", "1234567890", "bücher"):
        assert value not in said


SENT = [
    f"GET https://x.a.test/{VALUE}",
    f"GET https://x.a.test/?k={VALUE.lower()}",
    "GET https://x.a.test/?k=AKIA%44ECOY%30000000QQ",
    "GET https://x.a.test/?k=QUtJQURFQ09ZMDAwMDAwMFFR",
    f"GET https://x.a.test/{VALUE.encode().hex()}",
    f"GET https://{VALUE.lower()}.a.test/",
    f"CONNECT {VALUE.lower()}.a.test:443",
    f"GET https://elsewhere.test/{VALUE}",  # to a host that no rule names
]


@pytest.mark.parametrize("text", SENT)
def test_a_canary_in_the_target_is_refused_before_anything_is_resolved(text):
    verdict = ask(_policy(DECOY, more=COSTS), text, ())
    assert (verdict.reason, verdict.consequence) == (Reason.CANARY, Consequence.QUARANTINE)
    assert (verdict.rule_id, verdict.policy_file, verdict.line) == ("decoy", "f", 6)


def test_observe_mode_lets_no_canary_pass():
    policy = _policy(DECOY, more="mode: observe\n")
    assert ask(policy, SENT[0]).reason is Reason.CANARY
    assert ask(policy, "GET https://elsewhere.test/").allowed


def test_what_is_no_canary_is_judged_as_ever():
    assert ask(_policy(DECOY), "GET https://x.a.test/AKIADECOY").allowed


def test_a_tests_section_may_ask_about_canaries():
    test = "tests: [{profile: p, request: 'GET https://x.a.test/%s', expect: %s}]\n"
    _policy(DECOY, more=test % (VALUE, "deny canary"))
    with pytest.raises(PolicyFileError):
        _policy(DECOY, more=test % (VALUE, "allow"))


def test_an_explanation_names_the_canary_and_its_line():
    lines = explain(_policy(DECOY), request(SENT[0]), None, 0).lines
    assert "canary     decoy at f:5" in lines


def test_lint_wants_a_consequence_and_a_reason():
    found = {f.code for f in lint(_policy(DECOY), 0)}
    assert "canary_costs_nothing" in found
    found = {f.code for f in lint(_policy(DECOY.replace(", reason: planted", ""), more=COSTS), 0)}
    assert "canary_costs_nothing" not in found
    assert "no_reason" in found


OTHER = "{id: decoy, value: AKIADECOY1111111ZZ, reason: planted}"
CHANGES = [
    ([], [DECOY], [("tightened", "decoy is now watched")]),
    ([DECOY], [], [("loosened", "decoy is no longer watched")]),
    ([DECOY], [OTHER], [("loosened", "no longer"), ("tightened", "now watched")]),
    ([DECOY], [DECOY.replace("planted", "elsewhere")], [("other", "another")]),
    ([DECOY], [DECOY.replace("decoy", "renamed")], [("other", "renamed")]),
    ([DECOY], [DECOY], []),
]


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_a_canary_that_goes_is_looser(old, new, expected):
    changes = diff_policies(_policy(*old).spec, _policy(*new).spec)
    assert [change.kind.value for change in changes] == [kind for kind, _ in expected]
    for change, (_, words) in zip(changes, expected, strict=True):
        assert words in change.what
        assert VALUE not in change.what


def test_the_formatter_keeps_canaries_as_they_are():
    canaries = COMPLETE[COMPLETE.index("canaries:\n") : COMPLETE.index("profiles:")]
    assert VALUE in canaries
    assert canaries in format_policy(COMPLETE.encode(), "f").decode()


def test_no_representation_of_a_policy_shows_a_canary():
    policy = _policy(DECOY)
    assert VALUE not in f"{policy!r}"


def test_canaries_of_several_files_are_united(tmp_path):
    (tmp_path / "base.yaml").write_text(
        f"version: 1\nname: base\ncanaries: [{{id: b, value: {VALUE}}}]\n"
    )
    outer = tmp_path / "outer.yaml"
    outer.write_text(
        f"version: 1\nname: outer\ninclude: [base.yaml]\n{RULE}"
        "canaries: [{id: o, secret: 'vault:canary/x'}]\n"
    )
    policy = load_policy_file(outer)
    assert list(policy.canaries) == ["b", "o"]
    verdict = ask(policy, SENT[0])
    assert (verdict.rule_id, verdict.policy_file) == ("b", str(tmp_path / "base.yaml"))


def test_a_policy_without_canaries_looks_for_none():
    assert rules("hosts: [a.test]").decoys is None
