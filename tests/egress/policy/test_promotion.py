"""Mirror of policy/promotion.py: enforcing on evidence, and never by accident."""

import pytest

from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.promotion import NothingToPromote, Promotion, promote
from palyra_egress.policy.schema import Mode
from tests.egress.policy.policy_text import HEAD
from tests.egress.policy.recorded_traffic import early, entry

RULE_OBSERVES = """\
rules:
  # watched since May
  - id: r
    hosts: [a.test]
    observe: true # until we know
  - {id: s, hosts: [b.test], observe: "false"}
profiles: {p: [r]}
""".replace('"false"', "false")
FILE_OBSERVES = "mode: observe # for now\nrules: [{id: r, hosts: [a.test]}]\nprofiles: {p: [r]}\n"


def _promote(
    text: str, *asked: str, more: str = "", rule: str | None = None, under: str | None = None
) -> Promotion:
    """Promotes `text` + `more` on traffic that was recorded while `under` was in force."""
    watching = load_policy(f"{HEAD}{text if under is None else under}".encode(), "f")
    entries = [entry(watching, asking) for asking in asked]
    return promote((("", f"{HEAD}{text}{more}".encode()),), "f", entries, rule)


def test_a_rule_whose_traffic_is_all_allowed_is_promoted_and_every_comment_stays() -> None:
    found = _promote(RULE_OBSERVES, "GET https://a.test/x", rule="r")
    assert found.may_be_promoted and (found.evidence, found.explained) == (1, 0)
    expected = f"{HEAD}{RULE_OBSERVES}".replace("observe: true #", "observe: false #")
    assert found.sources[0][1].decode() == expected


def test_a_whole_file_is_promoted_with_all_its_rules() -> None:
    found = _promote(FILE_OBSERVES, "GET https://a.test/x")
    assert found.may_be_promoted
    assert found.sources[0][1].decode() == f"{HEAD}{FILE_OBSERVES}".replace("observe", "enforce")
    assert load_policy(found.sources[0][1], "f").mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("text", "rule"), [(RULE_OBSERVES, "r"), (RULE_OBSERVES, None), (FILE_OBSERVES, None)]
)
def test_an_unexplained_would_deny_stands_in_the_way(text: str, rule: str | None) -> None:
    found = _promote(text, "GET https://a.test/", "PUT https://a.test/x", rule=rule)
    assert not found.may_be_promoted
    [(unexplained, count)] = found.unexplained
    assert count == 1 and unexplained.target == "PUT https://a.test:443/x"
    assert unexplained.reason.short == "method_not_allowed"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (FILE_OBSERVES, "deny: [{id: d, hosts: [a.test], reason: paste site}]\n"),
        (
            FILE_OBSERVES,
            "tests: [{profile: p, request: PUT https://a.test/other, expect: observe}]\n",
        ),
        (FILE_OBSERVES.replace("[a.test]", "[a.test], methods: [PUT]"), ""),
    ],
)
def test_a_deny_rule_a_test_or_an_allowing_rule_explains(text: str, more: str) -> None:
    found = _promote(text, "PUT https://a.test/x", more=more, under=FILE_OBSERVES)
    assert found.may_be_promoted and found.explained == 1


@pytest.mark.parametrize(
    "test",
    [
        "{profile: p, request: POST https://a.test/x, expect: observe}",
        "{profile: p, request: PUT https://a.test:444/x, expect: observe}",
        "{profile: p, request: PUT https://b.test/x, expect: observe}",
    ],
)
def test_a_test_of_another_kind_of_request_explains_nothing(test: str) -> None:
    found = _promote(FILE_OBSERVES, "PUT https://a.test/x", more=f"tests: [{test}]\n")
    assert not found.may_be_promoted


def test_without_evidence_nothing_is_promoted() -> None:
    found = promote((("", f"{HEAD}{FILE_OBSERVES}".encode()),), "f", [early(), {"kind": "start"}])
    assert not found.may_be_promoted and found.evidence == 0


@pytest.mark.parametrize("rule", [None, "s", "q"])
def test_what_does_not_observe_cannot_be_promoted(rule: str | None) -> None:
    text = RULE_OBSERVES if rule is not None else "rules: [{id: r, hosts: [a.test]}]\n"
    with pytest.raises(NothingToPromote):
        promote((("", f"{HEAD}{text}".encode()),), "f", [], rule)


def test_tests_that_expect_observing_expect_the_refusal_afterwards() -> None:
    tests = """\
tests:
  - {profile: p, request: PUT https://a.test/, expect: observe method_not_allowed}
  - profile: p
    request: GET https://b.test/
    expect: "observe host_not_allowed" # never seen
  - {profile: p, request: GET https://a.test/, expect: allow}
"""
    found = _promote(FILE_OBSERVES, "PUT https://a.test/x", more=tests)
    assert found.may_be_promoted and found.explained == 1
    assert found.sources[0][1].decode().endswith(tests.replace("observe", "deny"))


def test_a_rule_that_goes_on_observing_keeps_its_tests() -> None:
    text = RULE_OBSERVES.replace("observe: false", "observe: true").replace("p: [r]", "p: [r, s]")
    test = "tests: [{profile: p, request: PUT https://b.test/, expect: observe}]\n"
    found = _promote(text, "GET https://a.test/", more=test, rule="r")
    assert found.may_be_promoted and found.sources[0][1].decode().endswith(test)


def test_a_file_that_is_not_in_force_is_not_promoted() -> None:
    failing = "tests: [{profile: p, request: PUT https://a.test/, expect: deny}]\n"
    with pytest.raises(PolicyFileError, match="gives observe method_not_allowed"):
        _promote(FILE_OBSERVES, more=failing, under=FILE_OBSERVES)
